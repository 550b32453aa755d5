import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { countOf, each, firstDevices, none } from './devices.ts';
import { invariants } from './invariants.ts';
import { search } from './search.ts';
import { type Choice, settingOf } from './setting.ts';
import type { State } from './state.ts';

const settings: Record<string, Choice> = {
  'refusals and silence': { may: ['take over', 'refuse', 'be silent'] },
  'three claims': { devices: 1, claims: 3, may: ['take over', 'refuse', 'be silent', 'shut down'] },
  'three devices': { devices: 3, windowSize: 1, may: ['take over', 'shut down'] },
  'lost answers': {
    devices: 1,
    claims: 3,
    lostAnswers: 1,
    may: ['take over', 'refuse', 'come late'],
  },
  cancellation: { pauses: 1, may: ['take over', 'cancel'] },
  expiry: { may: ['take over', 'refuse', 'expire', 'give up'] },
  elsewhere: { claims: 3, windowSize: 1, may: ['take over', 'ask elsewhere'] },
  hosts: { may: ['take over', 'step aside', 'not connect', 'shut down'] },
};

/** What can be seen of each device once the batch is finished, whatever its position. */
function endOf({ books, copies }: State): string {
  const of = (device: number) => {
    const said = (books.inDoubt & device) !== none ? 'in doubt' : (books.unsent & device) !== none ? 'unsent' : 'sent';
    return `${said}, ${countOf(copies, device)} copies`;
  };
  return each(firstDevices(books.size)).map(of).sort().join('; ');
}

describe('the search', () => {
  for (const [what, choice] of Object.entries(settings)) {
    test(`a reduced one comes to the same ends: ${what}`, (t) => {
      const [ends, reducedEnds] = [false, true].map((isReduced) => {
        const seen = new Set<string>();
        const onState = (state: State) => {
          if (state.books.isFinished) seen.add(endOf(state));
        };
        const { states } = search(settingOf({ ...choice, isReduced }), [], { onState });
        t.diagnostic(`${states} states, ${seen.size} ends`);
        return [...seen].sort();
      });
      assert.deepEqual(reducedEnds, ends);
    });
  }

  for (const what of ['three claims', 'lost answers', 'elsewhere', 'hosts']) {
    test(`states that count as one are the same: ${what}`, () => {
      const setting = settingOf({ ...settings[what], isReduced: false });
      const { states } = search(setting, []);
      assert.equal(states, search(setting, [], { key: (state) => JSON.stringify(state) }).states);
    });
  }

  test('shows the shortest way to what is broken', () => {
    const choice: Choice = { devices: 1, without: ['reserve_window moves the horizon'] };
    assert.deepEqual(search(settingOf(choice), invariants).violation, {
      invariant: 'the horizon is never behind a dispatch',
      trace: ['claimBatch', 'claim 1: load', 'claim 1: reserve_window {0}', 'claim 1: send {0}'],
    });
  });
});
