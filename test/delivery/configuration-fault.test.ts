import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decideFault, type FaultDecision, type FaultFacts } from '../../activities/delivery/configuration-fault.ts';
import type { Tries } from '../../activities/delivery/decide.ts';
import type { MisconfiguredVerdict } from '../../providers/provider.ts';

const key: MisconfiguredVerdict = {
  ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken', fault: 'credentials' },
  detail: 'Check the key.',
};
const clock: MisconfiguredVerdict = { ...key, reason: 'ExpiredProviderToken', fault: 'clock' };
const topic: MisconfiguredVerdict = { ...key, httpStatus: 400, reason: 'TopicDisallowed', fault: 'topic' };
const environment: MisconfiguredVerdict = { ...key, reason: 'BadEnvironmentKeyInToken', fault: 'environment' };
const noToken: MisconfiguredVerdict = { ...key, httpStatus: null, reason: 'invalid_grant' };
const appleKey: MisconfiguredVerdict = { ...key, reason: 'THIRD_PARTY_AUTH_ERROR', isOnePlatform: true };

/** The first answer of a send to one platform. */
const first: FaultFacts = {
  ...{ isStray: false, accepted: 0, isProven: false, canGoOnWithout: false },
  rules: {
    ...{ maxDoubts: 2, inDoubtPolicy: 'redeliver', msLeft: undefined, random: 0.5, othersTakenSince: false },
    retry: { baseMs: 10_000, maxMs: 3_600_000, maxAttempts: 4 },
  },
};
const fresh: Tries = { attempts: 0, excused: 0, doubts: 0 };
const stray = { isStray: true, isProven: true };
const spent = { attempts: 3 };

type Row = [rule: string, MisconfiguredVerdict, before: Partial<Tries>, more: Partial<FaultFacts>, after: string];
const rows: Row[] = [
  ['the first answer tells', key, {}, {}, 'halt'],
  ['… and more than a few do, whatever was accepted before', topic, {}, { isProven: true, accepted: 99 }, 'halt'],
  ['a stray is tried again', topic, {}, stray, 'wait 5000 1/0/0'],
  ['… and costs no attempt where it is our key', key, {}, stray, 'wait 5000 1/1/0'],
  ['… or our clock', clock, {}, stray, 'wait 5000 1/1/0'],
  ['… but was no answer of the provider’s: no stray', noToken, {}, stray, 'halt'],
  ['one device for ever, among few accepted', topic, spent, { ...stray, accepted: 8 }, 'halt'],
  ['one device for ever, among many: its own trouble', topic, spent, { ...stray, accepted: 9 }, 'rejected 4/0/0'],
  ['… nor is our key, however many', key, { attempts: 3, excused: 3 }, { ...stray, accepted: 99 }, 'halt'],
  [
    'one whose time is over before the next try',
    topic,
    {},
    { ...stray, accepted: 9, rules: { ...first.rules, msLeft: 10 } },
    'expired 1/0/0',
  ],
  [
    '… which may have got it',
    topic,
    { doubts: 1 },
    { ...stray, accepted: 9, rules: { ...first.rules, msLeft: 10 } },
    'unknown 1/0/1',
  ],
  ['one platform among others', appleKey, {}, { canGoOnWithout: true }, 'setPartAside'],
  ['… or after others', appleKey, {}, { accepted: 1 }, 'setPartAside'],
  ['… or which worked before', appleKey, {}, { isProven: true }, 'setPartAside'],
  ['one platform alone', appleKey, {}, {}, 'halt'],
  ['one environment among others', environment, {}, { canGoOnWithout: true }, 'setPartAside'],
  ['one environment alone', environment, {}, {}, 'halt'],
  ['a fault of all platforms is not of one', topic, {}, { canGoOnWithout: true }, 'halt'],
];

describe('what a configuration fault leads to', () => {
  for (const [rule, verdict, before, more, after] of rows) {
    test(`${rule}: ${after}`, () => {
      assert.equal(inWords(decideFault(verdict, { ...fresh, ...before }, { ...first, ...more })), after);
    });
  }

  test('a device that is rejected for it keeps the provider’s reason', () => {
    const decision = decideFault(topic, { ...fresh, ...spent }, { ...first, ...stray, accepted: 9 });
    assert.equal(decision.kind === 'record' && decision.reason, 'TopicDisallowed');
  });
});

/** The end or the wait, then attempts/excused/doubts. */
function inWords(decision: FaultDecision): string {
  if (decision.kind !== 'record' && decision.kind !== 'defer') return decision.kind;
  const { attempts, excused, doubts } = decision;
  const end = decision.kind === 'record' ? decision.outcome : `wait ${decision.waitMs}`;
  return `${end} ${attempts}/${excused}/${doubts}`;
}
