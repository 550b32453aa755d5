import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NotificationView } from '../../local/api-client.ts';
import { createProgress } from '../../local/progress.ts';

const view = (state: string, pending: number): NotificationView => ({
  id: 'x',
  state,
  halt: null,
  finished_at: null,
  books: {
    audience: 20_000,
    outcomes: { accepted: 20_000 - pending },
    pending,
    balanced: true,
    is_planned: true,
    batches: 2,
    batches_finished: 0,
  },
  totals: null,
});

function draw(isTTY: boolean): string {
  let text = '';
  const write = (part: string) => {
    text += part;
    return true;
  };
  const progress = createProgress({ isTTY, columns: 120, write }, 20_000);
  for (const pending of [15_000, 5_000, 200]) progress.show(view('sending', pending));
  progress.show(view('completed', 0));
  progress.end();
  return text;
}

test('where the output is no terminal, progress is a plain line now and then, without a bar', () => {
  const text = draw(false);
  assert.equal(
    text,
    'sending 5 000 of 20 000 · accepted 5 000 · pending 15 000\ncompleted 20 000 of 20 000 · accepted 20 000\n',
  );
});

test('on a terminal, progress is one line with a bar that renews itself', () => {
  const text = draw(true);
  assert.equal(text.split('\n').length, 2);
  assert.match(text, /\rx?.*sending █{7}░{21} 5 000 of 20 000/);
});
