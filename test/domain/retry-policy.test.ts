import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type RetryPolicy, retryDelayMs } from '../../domain/retry-policy.ts';

const policy: RetryPolicy = { baseMs: 10_000, maxMs: 3_600_000, maxAttempts: 8 };

describe('the ceiling of the wait', () => {
  const ceilings: [attempts: number, ms: number][] = [
    [1, 10_000],
    [2, 20_000],
    [3, 40_000],
    [4, 80_000],
    [5, 160_000],
    [6, 320_000],
    [7, 640_000],
    [8, 1_280_000],
    [9, 2_560_000],
    [10, 3_600_000],
    [11, 3_600_000],
    [100, 3_600_000],
  ];
  for (const [attempts, ms] of ceilings) {
    test(`after attempt ${attempts}: ${ms} ms`, () => assert.equal(retryDelayMs(policy, attempts, undefined, 1), ms));
  }

  test('doubles thirty times and then stays, however long the policy would wait', () => {
    const patient = { ...policy, baseMs: 1, maxMs: Number.MAX_SAFE_INTEGER };
    assert.equal(retryDelayMs(patient, 30, undefined, 1), 2 ** 29);
    for (const attempts of [31, 32, 33, 2_000]) assert.equal(retryDelayMs(patient, attempts, undefined, 1), 2 ** 30);
  });
});

describe('the wait', () => {
  type Row = [rule: string, attempts: number, askedMs: number | undefined, random: number, ms: number];
  const waits: Row[] = [
    ['may be none at all', 1, undefined, 0, 0],
    ['… after any attempt', 9, undefined, 0, 0],
    ['is a share of the ceiling', 3, undefined, 0.25, 10_000],
    ['… and may be all of it', 3, undefined, 1, 40_000],
    ['is in whole milliseconds', 1, undefined, 0.123_456_7, 1_235],
    ['is never shorter than the provider asked for', 1, 60_000, 0, 60_000],
    ['… also at the ceiling', 1, 60_000, 1, 60_000],
    ['… and longer where chance says so', 3, 5_000, 0.5, 20_000],
    ['is not changed by a provider that asks for nothing', 3, 0, 0.5, 20_000],
    ['is never longer than the maximum, whoever asks', 1, 3_600_001, 0, 3_600_000],
    ['… be it for ever', 1, Number.POSITIVE_INFINITY, 0, 3_600_000],
    ['… or chance', 20, undefined, 0.9, 3_600_000],
    ['takes its share before the maximum cuts it', 10, undefined, 0.5, 2_560_000],
  ];
  for (const [rule, attempts, askedMs, random, ms] of waits) {
    test(`${rule}: ${ms} ms`, () => assert.equal(retryDelayMs(policy, attempts, askedMs, random), ms));
  }
});
