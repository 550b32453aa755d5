import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type Decision,
  type DeliveryRules,
  type DeviceVerdict,
  decide,
  type Tries,
} from '../../activities/delivery/decide.ts';
import { type TokenEvidence, weighTokens } from '../../domain/token-evidence.ts';

const rules: DeliveryRules = {
  retry: { baseMs: 10_000, maxMs: 3_600_000, maxAttempts: 8 },
  maxDoubts: 2,
  inDoubtPolicy: 'redeliver',
  msLeft: undefined,
  random: 0.5,
  othersTakenSince: false,
};
const fresh: Tries = { attempts: 0, excused: 0, doubts: 0 };

const later: DeviceVerdict = { kind: 'later', httpStatus: 429, reason: 'TooManyRequests', scope: 'device' };
const quota: DeviceVerdict = { kind: 'later', httpStatus: 429, reason: 'QUOTA_EXCEEDED', scope: 'account' };
const busy: DeviceVerdict = { kind: 'later', httpStatus: 503, reason: 'ServiceUnavailable', scope: 'provider' };
const silence: DeviceVerdict = { kind: 'unanswered', httpStatus: null, reason: 'deadline' };
const error: DeviceVerdict = { kind: 'unanswered', httpStatus: 500, reason: 'InternalServerError' };
const unsent: DeviceVerdict = { kind: 'unsent', reason: 'connect_failed', afterMs: 5_000 };
const rejected: DeviceVerdict = { kind: 'rejected', httpStatus: 413, reason: 'PayloadTooLarge', isPayloadFault: true };
const dead: DeviceVerdict = { kind: 'unregistered', httpStatus: 410, reason: 'Unregistered' };

type Row = [rule: string, verdict: DeviceVerdict, before: Partial<Tries>, more: Partial<DeliveryRules>, after: string];
const rows: Row[] = [
  ['a dead token is the end', dead, {}, {}, 'unregistered 1/0/0'],
  ['a refused message is the end', rejected, {}, {}, 'rejected 1/0/0'],
  ['… after a doubt too', rejected, { attempts: 1, doubts: 1 }, {}, 'rejected 2/0/1'],
  ['refused for now: half of the ceiling', later, {}, {}, 'wait 5000 1/0/0'],
  ['… which doubles', later, { attempts: 3 }, {}, 'wait 40000 4/0/0'],
  ['… and as long as the provider asks for', { ...later, afterMs: 90_000 }, {}, {}, 'wait 90000 1/0/0'],
  ['… but never longer than the policy', { ...later, afterMs: 9e9 }, {}, {}, 'wait 3600000 1/0/0'],
  ['… until the attempts are spent', later, { attempts: 7 }, {}, 'failed 8/0/0'],
  ['our quota is no trouble of the device', quota, { attempts: 7 }, {}, 'wait 640000 8/1/0'],
  ['… however often', quota, { attempts: 99, excused: 99 }, {}, 'wait 3600000 100/100/0'],
  ['… and excuses no attempt of its own', later, { attempts: 12, excused: 5 }, {}, 'failed 13/5/0'],
  ['a busy server excuses the device', busy, { attempts: 1, excused: 1 }, {}, 'wait 10000 2/2/0'],
  [
    '… but not while it takes others',
    busy,
    { attempts: 1, excused: 1 },
    { othersTakenSince: true },
    'wait 10000 2/1/0',
  ],
  ['… nor from then on', busy, { attempts: 8, excused: 1 }, {}, 'failed 9/1/0'],
  ['silence is a doubt', silence, {}, {}, 'wait 10000 1/0/1'],
  ['… as often as is allowed', silence, { attempts: 2, doubts: 2 }, {}, 'unknown 3/0/3'],
  ['… and never twice under skip', silence, {}, { inDoubtPolicy: 'skip' }, 'unknown 1/0/1'],
  ['an error may hide a delivery: one doubt', error, {}, {}, 'wait 10000 1/0/1'],
  ['… which the limit on attempts ends', error, { attempts: 4, doubts: 1 }, {}, 'wait 80000 5/0/1'],
  ['… as unknown', error, { attempts: 7, doubts: 1 }, {}, 'unknown 8/0/1'],
  ['… at once under skip', error, {}, { inDoubtPolicy: 'skip' }, 'unknown 1/0/1'],
  ['Retry-After of an error is kept', { ...error, afterMs: 60_000 }, {}, {}, 'wait 60000 1/0/1'],
  ['what never left is no attempt', unsent, { attempts: 2 }, {}, 'wait 5000 2/0/0'],
  ['a wait beyond the expiry is not waited for', unsent, {}, { msLeft: 4_000 }, 'expired 0/0/0'],
  ['… which in doubt is unknown', later, { attempts: 1, doubts: 1 }, { msLeft: 10 }, 'unknown 2/0/1'],
  ['a wait that ends before the expiry is', unsent, {}, { msLeft: 5_001 }, 'wait 5000 0/0/0'],
];

describe('what happens to a device after a verdict', () => {
  for (const [rule, verdict, before, more, after] of rows) {
    test(`${rule}: ${after}`, () => {
      assert.equal(inWords(decide(verdict, { ...fresh, ...before }, { ...rules, ...more })), after);
    });
  }
});

describe('what a suspicious answer is worth', () => {
  const judgements: [TokenEvidence, ReturnType<typeof weighTokens>][] = [
    [{ accepted: 0, suspicious: 1 }, 'undecided'],
    [{ accepted: 0, suspicious: 9 }, 'undecided'],
    [{ accepted: 0, suspicious: 10 }, 'fault'],
    [{ accepted: 3, suspicious: 1 }, 'undecided'],
    [{ accepted: 4, suspicious: 1 }, 'dead'],
    [{ accepted: 20, suspicious: 9 }, 'undecided'],
    [{ accepted: 39, suspicious: 10 }, 'fault'],
    [{ accepted: 40, suspicious: 10 }, 'dead'],
    [{ accepted: 160, suspicious: 40 }, 'dead'],
    [{ accepted: 159, suspicious: 41 }, 'fault'],
  ];
  for (const [evidence, judgement] of judgements) {
    test(`${evidence.accepted} accepted, ${evidence.suspicious} suspicious: ${judgement}`, () => {
      assert.equal(weighTokens(evidence), judgement);
    });
  }
});

/** The end or the wait, then attempts/excused/doubts. */
function inWords(decision: Decision): string {
  const { attempts, excused, doubts } = decision;
  const end = decision.kind === 'record' ? decision.outcome : `wait ${decision.waitMs}`;
  return `${end} ${attempts}/${excused}/${doubts}`;
}
