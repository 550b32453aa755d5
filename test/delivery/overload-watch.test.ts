import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OverloadWatch } from '../../activities/delivery/overload-watch.ts';

const scope = 'app:1:apns';

function noteMany(watch: OverloadWatch, count: number, isRefused: boolean, of = scope): boolean[] {
  return Array.from({ length: count }, () => watch.note(of, isRefused));
}

test('one refusal in a hundred never makes everybody wait', () => {
  const watch = new OverloadWatch();
  const waits = Array.from({ length: 10_000 }, (_, n) => watch.note(scope, n % 100 === 0));
  assert.equal(waits.includes(true), false);
});

test('a provider that refuses from the start makes everybody wait within a handful of answers', () => {
  assert.deepEqual(noteMany(new OverloadWatch(), 6, true), [false, false, false, false, true, true]);
});

test('a quota that runs out in mid-send is noticed within a few dozen answers', () => {
  const watch = new OverloadWatch();
  noteMany(watch, 100_000, false);
  const refusals = noteMany(watch, 30, true);
  assert.equal(refusals.at(-1), true);
});

test('a provider that is well again is forgiven within a thousand answers', () => {
  const watch = new OverloadWatch();
  noteMany(watch, 1_000, true);
  noteMany(watch, 1_000, false);
  assert.equal(watch.note(scope, true), false);
});

test('one app’s refusals say nothing about another’s', () => {
  const watch = new OverloadWatch();
  noteMany(watch, 100, true);
  assert.deepEqual(noteMany(watch, 4, true, 'app:2:apns'), [false, false, false, false]);
});
