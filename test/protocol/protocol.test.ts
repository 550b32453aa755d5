import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type InDoubtPolicy, inDoubtPolicies } from '../../domain/notification-state.ts';
import { invariants } from './invariants.ts';
import { search } from './search.ts';
import { type Choice, type Event, settingOf } from './setting.ts';

/** So many states are there at least, by policy: where fewer are found, steps have become impossible. */
type States = Record<InDoubtPolicy, number>;

const takenOver = (...may: Event[]): Choice => ({ may: ['take over', ...may] });

const settings: [what: string, choice: Choice, atLeast: States][] = [
  [
    'four devices, two claims, refusals and silence',
    { devices: 4, ...takenOver('refuse', 'be silent') },
    { redeliver: 180_000, skip: 27_000 },
  ],
  ['six devices, windows of three', { devices: 6, windowSize: 3, ...takenOver() }, { redeliver: 31_000, skip: 16_000 }],
  ['five devices, a crash', { devices: 5, crashes: 1, may: ['refuse'] }, { redeliver: 80_000, skip: 37_000 }],
  [
    'three claims, two of them zombies',
    { devices: 3, claims: 3, ...takenOver('refuse', 'be silent') },
    { redeliver: 130_000, skip: 17_000 },
  ],
  [
    'an answer of PostgreSQL lost',
    { devices: 3, lostAnswers: 1, ...takenOver('refuse') },
    { redeliver: 30_000, skip: 10_000 },
  ],
  ['two of them lost', { lostAnswers: 2, ...takenOver('refuse', 'be silent') }, { redeliver: 12_000, skip: 4_000 }],
  [
    'answers lost at the end of a run',
    { claims: 3, lostAnswers: 2, crashes: 1, may: ['refuse', 'shut down', 'ask elsewhere', 'expire'] },
    { redeliver: 60_000, skip: 40_000 },
  ],
  [
    'pause and shutdown, answers not waited for',
    { devices: 3, pauses: 1, ...takenOver('refuse', 'shut down', 'give up') },
    { redeliver: 50_000, skip: 20_000 },
  ],
  ['expiry', { devices: 3, ...takenOver('refuse', 'expire', 'give up') }, { redeliver: 29_000, skip: 10_000 }],
  ['cancellation', { devices: 3, ...takenOver('refuse', 'be silent', 'cancel') }, { redeliver: 44_000, skip: 10_000 }],
  [
    'devices elsewhere are asked',
    { devices: 3, claims: 3, ...takenOver('refuse', 'ask elsewhere') },
    { redeliver: 99_000, skip: 32_000 },
  ],
  [
    'two hosts, one of them silent or away',
    { devices: 3, ...takenOver('refuse', 'step aside', 'not connect', 'shut down') },
    { redeliver: 21_000, skip: 12_000 },
  ],
  [
    'orderly ends only',
    { devices: 3, claims: 3, pauses: 1, may: ['refuse', 'not connect', 'shut down', 'ask elsewhere'] },
    { redeliver: 21_000, skip: 21_000 },
  ],
  [
    'a zombie with all that it tries',
    { isReduced: false, ...takenOver('refuse', 'be silent', 'step aside') },
    { redeliver: 80_000, skip: 24_000 },
  ],
  [
    '… at its end',
    { isReduced: false, ...takenOver('refuse', 'expire', 'give up') },
    { redeliver: 31_000, skip: 16_000 },
  ],
  [
    '… elsewhere',
    { isReduced: false, windowSize: 1, claims: 3, ...takenOver('ask elsewhere') },
    { redeliver: 29_000, skip: 21_000 },
  ],
];

const late = { lostAnswers: 1, claims: 3, ...takenOver('come late') };

/** All that is done by senders, provider, operators and chance, and what comes of it: none of it may become impossible. */
const kinds = [
  ...['claimBatch', 'load'],
  ...['askElsewhere', 'askElsewhere, answer lost', 'askElsewhere: fenced', 'askElsewhere: nobody', 'endElsewhere'],
  ...['reserve_window', 'reserve_window, answer lost', 'reserve_window: fenced'],
  ...['send', 'letOthersPass', 'postpone', 'recordUnsent: expired', 'recordUnsent: unknown'],
  ...['accepted', 'later', 'unanswered', 'unsent'],
  ...['record_deliveries', 'record_deliveries, answer lost', 'record_deliveries, not stored'],
  ...['record_deliveries: fenced', 'isStored: yes'],
  ...['storeDeferrals', 'storeDeferrals, answer lost', 'storeDeferrals, not stored', 'storeDeferrals: fenced'],
  ...['stop: askElsewhere', 'stop: cancelled', 'stop: exhausted', 'stop: expired', 'stop: paused', 'stop: shutdown'],
  ...['returnReserved', 'returnReserved, answer lost'],
  ...['settleBatch', 'settleBatch, answer lost', 'settleBatch: fenced', 'settleCancelled'],
  ...['the run ends', 'the worker is gone', 'crash', 'pause', 'resume', 'cancel', 'expire'],
];

describe('in every order of steps', () => {
  const taken = new Set<string>();

  for (const [what, choice, atLeast] of settings) {
    for (const policy of inDoubtPolicies) {
      test(`${what}, ${policy}: nothing breaks`, (t) => {
        const startedAt = performance.now();
        const found = search(settingOf({ ...choice, policy }), invariants);
        t.diagnostic(`${found.states} states, ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
        assert.equal(found.violation, undefined);
        assert.ok(found.states >= atLeast[policy]);
        for (const name of found.taken.keys()) taken.add(name);
      });
    }
  }
  test('every kind of step was taken', () => assert.deepEqual([...taken].sort(), kinds.sort()));

  test('a statement that comes late breaks nothing', () => {
    const found = search(settingOf(late), invariants);
    assert.equal(found.violation, undefined);
    assert.ok(found.taken.has('reserve_window, late'));
  });
});
