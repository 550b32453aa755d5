import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Ending, endingOf, haltedForBooks, type Left } from '../../activities/delivery/ending.ts';
import { type Halt, RunEnd, type SendEnd } from '../../activities/delivery/run-end.ts';
import type { Claim } from '../../db/batches.ts';
import { FencedError } from '../../db/fenced-error.ts';

const claim: Claim = {
  ...{ notificationId: '01990000-0000-7000-8000-000000000000', seq: 7, provider: 'fcm', fence: 3 },
  ...{ horizon: 0, deviceIds: [1, 2, 3], recorded: '000', accepted: 0 },
};
/** Two devices wait, and it is not known when. */
const left: Left = { claim, isFinished: false, waiting: 2, nextDueMs: undefined, isAnyUntried: true };
const credentials: Halt = { reason: 'credentials', detail: 'Check the key.' };
const nulByte = Object.assign(new Error('invalid byte sequence'), { code: '22021' });
const away = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED' });

type FinalEnd = Parameters<typeof endingOf>[0];
type Row = [rule: string, end: FinalEnd, more: Partial<Left>, ending: string];

describe('what the batch’s workflow is told, and what is done before', () => {
  const rows: Row[] = [
    ['none is due: until the next one', { kind: 'noneDue' }, { nextDueMs: 5_000 }, 'deferred 5000 2: refused for now'],
    [
      '… by a timer, in whole milliseconds',
      { kind: 'noneDue' },
      { nextDueMs: 99.2 },
      'deferred 100 2: refused for now',
    ],
    [
      '… but never a shorter one than is worth it',
      { kind: 'noneDue' },
      { nextDueMs: 3 },
      'deferred 50 2: refused for now',
    ],
    ['… nor a longer one than it is known for', { kind: 'noneDue' }, {}, 'deferred 50 2: refused for now'],
    ['some wait for their host', { kind: 'noneDue', blockedMs: 2_000 }, {}, 'deferred 2000 2: refused for now'],
    [
      '… or for their turn, which comes first',
      { kind: 'noneDue', blockedMs: 2_000 },
      { nextDueMs: 900 },
      'deferred 900 2: refused for now',
    ],
    [
      '… or for their turn, which comes later',
      { kind: 'noneDue', blockedMs: 2_000 },
      { nextDueMs: 9_000 },
      'deferred 2000 2: refused for now',
    ],
    [
      'all wait: no other batch can do better',
      { kind: 'wait', waitMs: 7_000, reason: 'rate limit' },
      {},
      'waiting 7000 2: rate limit',
    ],
    ['… for a moment', { kind: 'wait', waitMs: 0, reason: 'rate limit' }, {}, 'waiting 50 2: rate limit'],
    [
      '… for one host: batches of others can',
      { kind: 'wait', waitMs: 7_000, reason: 'provider fails', host: 'sandbox' },
      {},
      'waiting 7000 2: provider fails at sandbox',
    ],
    [
      'the worker shuts down: another goes on at once',
      { kind: 'shutdown' },
      { nextDueMs: 5_000 },
      'waiting 0 2: worker shut down',
    ],
    ['the time is over: the rest is recorded', { kind: 'expired' }, {}, 'settle as expired; finished 0 0: expired'],
    ['the state forbids it', { kind: 'stopped', reason: 'paused' }, {}, 'stopped 0 2: paused'],
    ['a later claim owns the batch', { kind: 'stopped', reason: 'fenced' }, {}, 'stopped 0 2: fenced'],
    ['a fault of the send', { kind: 'halt', halt: credentials }, {}, 'halt for credentials; stopped 0 0: credentials'],
    [
      'a fault of one platform, while devices are left that were never tried',
      { kind: 'partAtFault', halt: credentials },
      {},
      'deferred 300000 2: credentials',
    ],
    [
      '… while others were refused for now',
      { kind: 'partAtFault', halt: credentials },
      { nextDueMs: 8_000, isAnyUntried: false },
      'deferred 8000 2: credentials',
    ],
    [
      '… for longer than the platform waits',
      { kind: 'partAtFault', halt: credentials },
      { nextDueMs: 900_000, isAnyUntried: false },
      'deferred 300000 2: credentials',
    ],
    [
      '… and no other is left: a fault of the send',
      { kind: 'partAtFault', halt: credentials },
      { isAnyUntried: false },
      'halt for credentials; stopped 0 0: credentials',
    ],
    ['outcomes that PostgreSQL refuses', { kind: 'failed', error: nulByte }, {}, 'halt for books; stopped 0 0: books'],
  ];
  for (const [rule, end, more, ending] of rows) {
    test(`${rule}: ${ending}`, () => {
      assert.equal(inWords(endingOf(end, { ...left, ...more })), ending);
    });
  }

  test('every device has its outcome: finished, however the run ended', () => {
    for (const [, end] of rows) {
      assert.equal(inWords(endingOf(end, { ...left, isFinished: true })), 'finished 0 0: every device has its outcome');
    }
  });

  test('an error that may heal is thrown, for another attempt', () => {
    assert.throws(() => endingOf({ kind: 'failed', error: away }, left), away);
    assert.throws(() => haltedForBooks(away, 7), away);
  });

  test('a halt for the books names the batch and what PostgreSQL says', () => {
    const { halt } = haltedForBooks(nulByte, 7);
    assert.equal(halt?.detail, 'PostgreSQL refuses to record outcomes of batch 7: invalid byte sequence');
  });
});

describe('of several reasons to end a run', () => {
  const wait: SendEnd = { kind: 'wait', waitMs: 1, reason: 'rate limit' };
  const question: SendEnd = { kind: 'askElsewhere', devices: 5, suspects: 5 };
  const halt: SendEnd = { kind: 'halt', halt: credentials };
  const paused: SendEnd = { kind: 'stopped', reason: 'paused' };
  const rows: [rule: string, ends: SendEnd[], why: SendEnd][] = [
    ['the first counts', [paused, wait], paused],
    ['a halt is stronger than a wait', [wait, halt], halt],
    ['… and than a question', [question, halt], halt],
    ['… but not than a pause', [paused, halt], paused],
    ['a wait is not stronger than a halt', [halt, wait], halt],
  ];
  for (const [rule, ends, why] of rows) {
    test(rule, () => {
      let stops = 0;
      const end = new RunEnd(() => {
        stops += 1;
      });
      for (const each of ends) each.kind === 'halt' ? end.haltFor(each.halt) : end.stopFor(each);
      assert.deepEqual(end.why, why);
      assert.equal(stops, ends.length, 'the dispatcher is woken each time');
    });
  }

  test('a write after a later claim is no failure', () => {
    const end = new RunEnd(() => {});
    end.fail(new FencedError(claim));
    assert.deepEqual(end.why, { kind: 'stopped', reason: 'fenced' });
  });
});

/** What is done before; status, wait in milliseconds, devices that wait: reason. */
function inWords({ status, waitMs = 0, deferred = 0, reason, host, halt, settle }: Ending): string {
  const before = [halt && `halt for ${halt.reason}; `, settle && `settle as ${settle.outcome}; `]
    .filter(Boolean)
    .join('');
  return `${before}${status} ${waitMs} ${deferred}: ${reason}${host === undefined ? '' : ` at ${host}`}`;
}
