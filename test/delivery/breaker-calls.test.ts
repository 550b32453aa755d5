/** The breaker alone: what the answers of one configuration call for. How the engine obeys is in `breaker.test.ts`. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Breaker, type BreakerCall } from '../../activities/delivery/breaker.ts';
import type { PendingDevice } from '../../activities/delivery/pending.ts';
import type { RejectedVerdict, UnregisteredVerdict } from '../../providers/provider.ts';

type Answer = 'accepted' | 'suspicious' | 'dead' | 'other';

const verdict: UnregisteredVerdict = {
  ...{
    kind: 'unregistered',
    httpStatus: 400,
    reason: 'BadDeviceToken',
    suspicion: { fault: 'environment', check: 'check it.' },
  },
};
const payloadFault: RejectedVerdict = {
  ...{ kind: 'rejected', httpStatus: 413, reason: 'PayloadTooLarge', isPayloadFault: true },
};
let lastId = 0;
const device = (): PendingDevice => ({
  ...{
    deviceId: ++lastId,
    wasDeferred: false,
    position: 0,
    address: undefined,
    reached: undefined,
    readAt: new Date(),
  },
  ...{ attempts: 0, excused: 0, doubts: 0, refusedAt: null, requestNumber: 0 },
  content: { prepared: { target: 'test' }, expiresAt: null, inDoubtPolicy: 'redeliver' },
});

function note(breaker: Breaker, answer: Answer): BreakerCall {
  switch (answer) {
    case 'accepted':
      return breaker.noteAccepted();
    case 'suspicious':
      return breaker.noteSuspicious({ device: device(), verdict });
    case 'dead':
      return breaker.noteProof();
    case 'other':
      return breaker.noteAnswer();
  }
}

const times = <const T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);
/** The calls of so many answers, without those that ask for nothing. */
const callsFor = (breaker: Breaker, answers: Answer[]): string[] =>
  answers.flatMap((answer, n) => {
    const call = note(breaker, answer);
    return call === 'nothing' ? [] : [`${call} after ${n + 1}`];
  });

describe('what the answers so far call for', () => {
  const rows: [rule: string, answers: Answer[], calls: string[]][] = [
    ['a healthy list: nothing', times(1_000, 'accepted'), []],
    ['a few suspects before anything else: nothing', times(4, 'suspicious'), []],
    ['five suspects and no device taken: ask elsewhere', times(5, 'suspicious'), ['askElsewhere after 5']],
    [
      '… refusals between them prove nothing',
      [...times(4, 'suspicious'), 'other', 'suspicious'],
      ['askElsewhere after 6'],
    ],
    ['… but a dead token does, which no wrong configuration gives', ['dead', ...times(9, 'suspicious')], []],
    [
      'a full sample with an ordinary share of suspects: weigh them',
      [...times(160, 'accepted'), ...times(40, 'suspicious')],
      ['weigh after 200'],
    ],
    [
      '… with more than a fifth: ask elsewhere',
      [...times(159, 'accepted'), ...times(41, 'suspicious')],
      ['askElsewhere after 200'],
    ],
    ['… with none: nothing, and the next sample begins', [...times(200, 'accepted'), 'suspicious'], []],
  ];
  for (const [rule, answers, calls] of rows) {
    test(rule, () => {
      assert.deepEqual(callsFor(new Breaker(), answers), calls);
    });
  }
});

describe('after asking elsewhere in the audience', () => {
  const rows: [rule: string, before: number, answers: Answer[], judgement: string][] = [
    ['no device elsewhere is suspicious', 5, times(5, 'accepted'), 'nothing'],
    ['too few suspicious in all', 5, times(4, 'suspicious'), 'nothing'],
    ['none was taken, all are suspicious', 5, times(5, 'suspicious'), 'halt'],
    ['of a handful one was taken', 5, ['accepted', ...times(4, 'suspicious')], 'nothing'],
    ['of many a fifth is suspicious', 41, [...times(32, 'accepted'), ...times(8, 'suspicious')], 'nothing'],
    ['of many more than a fifth is', 41, [...times(31, 'accepted'), ...times(9, 'suspicious')], 'halt'],
  ];
  for (const [rule, before, answers, judgement] of rows) {
    test(`${rule}: ${judgement}`, () => {
      const breaker = new Breaker();
      breaker.askElsewhere(before);
      assert.deepEqual(callsFor(breaker, answers), []);
      assert.equal(breaker.judgeElsewhere(), judgement);
    });
  }

  test('as many are asked as give a fair picture: few, or more once a device was taken', () => {
    const breaker = new Breaker();
    assert.equal(breaker.sizeOfElsewhere, 5);
    breaker.noteAccepted();
    assert.equal(breaker.sizeOfElsewhere, 40);
  });
});

describe('a configuration fault in the provider’s own words', () => {
  const rows: [rule: string, hasAcceptedBefore: boolean, before: Answer[], devices: number[], isStray: boolean][] = [
    ['the first answer is believed', false, [], [1], false],
    ['so it is after suspicious answers', false, ['suspicious'], [1], false],
    ['once a device was taken in this run, one is a stray', false, ['accepted'], [1], true],
    ['so it is where one was taken in a run before', true, [], [1], true],
    ['a second device is', true, [], [1, 2], true],
    ['a third is not', true, [], [1, 2, 3], false],
    ['one device counts once', true, [], [1, 1, 1, 1], true],
  ];
  for (const [rule, hasAcceptedBefore, before, devices, isStray] of rows) {
    test(`${rule}: ${isStray ? 'a stray' : 'believed'}`, () => {
      const breaker = new Breaker();
      for (const answer of before) note(breaker, answer);
      assert.equal(devices.map((id) => breaker.noteFault(id, hasAcceptedBefore)).at(-1), isStray);
    });
  }

  test('a device that is taken in between shows that the configuration works', () => {
    const breaker = new Breaker();
    for (const id of [1, 2]) breaker.noteFault(id, true);
    breaker.noteAccepted();
    assert.equal(breaker.noteFault(3, true), true);
  });
});

describe('a refusal of the payload', () => {
  const faults = (breaker: Breaker, count: number) =>
    times(count, undefined).map(() => breaker.notePayloadFault({ device: device(), verdict: payloadFault }));

  test('by five devices, with none that took it, is a fault of the message', () => {
    assert.deepEqual(faults(new Breaker(), 5), [false, false, false, false, true]);
  });

  test('is none once a device took it', () => {
    const breaker = new Breaker();
    breaker.noteAccepted();
    assert.deepEqual(faults(breaker, 9), times(9, false));
  });
});
