import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judgeAttempt, type WebhookAttempt } from '../../domain/webhook-attempt.ts';

const judge = (attempt: WebhookAttempt, attempts = 1, failures = 1, random = 0.5) =>
  judgeAttempt(attempt, attempts, failures, random);
const hour = 3_600_000;
const nothing = { error: 'refused' };

test('an answer with 2xx takes it, 410 ends the webhook, anything else and silence is tried again', () => {
  for (const status of [200, 201, 202, 204, 299]) assert.deepEqual(judge({ status }), { kind: 'delivered' });
  assert.deepEqual(judge({ status: 410 }), { kind: 'gone' });
  for (const status of [101, 301, 302, 307, 400, 401, 404, 409, 429, 500, 503]) {
    assert.equal(judge({ status }).kind, 'retry', `${status}`);
  }
  assert.equal(judge(nothing).kind, 'retry');
});

test('the waits are those of Standard Webhooks, a tenth more or less, over three days; then it has failed', () => {
  const table = [5_000, 300_000, 1_800_000, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour];
  let sum = 0;
  table.forEach((waitMs, i) => {
    const waits = [0, 0.5, 1].map((random) => judge(nothing, i + 1, 1, random));
    assert.deepEqual(
      waits.map((verdict) => 'waitMs' in verdict && verdict.waitMs),
      [waitMs * 0.9, waitMs, Math.round(waitMs * 1.1)],
    );
    sum += waitMs;
  });
  assert.ok(sum > 72 * hour && sum < 120 * hour);
  assert.deepEqual(judge(nothing, 10), { kind: 'failed', blockMs: 0 });
});

test('a receiver that asks for patience gets it, as a whole, a day at most', () => {
  const asked = (retryAfterMs: number) => judge({ status: 429, retryAfterMs });
  assert.deepEqual(asked(60_000), { kind: 'retry', waitMs: 60_000, blockMs: 60_000 });
  assert.deepEqual(asked(1_000), { kind: 'retry', waitMs: 5_000, blockMs: 1_000 });
  assert.deepEqual(asked(1_000 * hour), { kind: 'retry', waitMs: 24 * hour, blockMs: 24 * hour });
});

test('a receiver that is down is left alone for longer and longer, five minutes at most', () => {
  const blocked = (failures: number) => {
    const verdict = judge(nothing, 1, failures);
    return 'blockMs' in verdict ? verdict.blockMs : undefined;
  };
  assert.deepEqual(
    [1, 7, 8, 9, 12, 16, 17, 1_000_000].map(blocked),
    [0, 0, 1_000, 2_000, 16_000, 256_000, 300_000, 300_000],
  );
});
