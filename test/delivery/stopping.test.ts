import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { after, before, describe, test } from 'node:test';
import type { MockActivityEnvironment } from '@temporalio/testing';
import { BatchSlot } from '../../activities/delivery/batch-slot.ts';
import { BatchBooks } from '../../activities/delivery/claimed-books.ts';
import { DatabaseClock } from '../../activities/delivery/database-clock.ts';
import { PendingDevices } from '../../activities/delivery/pending-devices.ts';
import { Sender } from '../../activities/delivery/sender.ts';
import { settleCancelled } from '../../activities/settle-cancelled.ts';
import { claimBatch } from '../../db/batches.ts';
import { cancelNotification, pauseNotification, resumeNotification } from '../../db/notification-moves.ts';
import { until } from '../support/until.ts';
import {
  accepted,
  activityEnvironment,
  type Call,
  checkRepeats,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const settle = (send: TestSend) => {
  const environment = activityEnvironment();
  return environment.run(() => settleCancelled(bench.worker().deps, send.id, new AbortController().signal));
};

/** Two windows may be reserved when the state changes: one that is being dispatched and the next. */
const windowSize = 20;
const reservedAtMost = 2 * windowSize;

/** Runs `change` within the provider's answer to call number `at`, before that answer is given. */
async function changeInMidBatch(send: TestSend, at: number, change: () => Promise<unknown>) {
  let callsBefore = 0;
  const provider = createScriptedProvider(async ({ number }) => {
    if (number === at) {
      await change();
      callsBefore = provider.calls.length;
    } else if (number > at) await until(() => callsBefore > 0);
    return accepted;
  });
  const result = await bench.worker({ provider, windowSize, maxInFlight: 10 }).deliver(send.batches[0]!);
  return { provider, result, callsAfter: provider.calls.length - callsBefore };
}

describe('in mid-batch', () => {
  test('pause: at most what was reserved still goes out; resume sends to the rest, nobody twice, nobody in doubt', async () => {
    const send = await bench.launch({ devices: 400 });
    const { provider, result, callsAfter } = await changeInMidBatch(send, 100, () =>
      pauseNotification(bench.database.db, 1, send.id),
    );
    assert.deepEqual([result.status, result.reason], ['stopped', 'paused']);
    assert.ok(callsAfter <= reservedAtMost, `${callsAfter} after the pause`);
    await send.checkBooks({ accepted: provider.calls.length });

    const again = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.deepEqual([again.status, again.reason], ['stopped', 'paused']);
    await resumeNotification(bench.database.db, 1, send.id);
    const next = createScriptedProvider();
    await bench.worker({ provider: next }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 400 });
    const calls: Call[] = [...provider.calls, ...next.calls];
    assert.equal(calls.length, 400);
    assert.ok((await send.rows()).every((row) => !row.inDoubt && row.attempts === 1));
  });

  test('cancel: at most what was reserved still goes out, everybody else ends as cancelled, nobody as unknown', async () => {
    const send = await bench.launch({ devices: 400 });
    const { provider, result, callsAfter } = await changeInMidBatch(send, 100, () =>
      cancelNotification(bench.database.db, 1, send.id),
    );
    assert.deepEqual([result.status, result.reason], ['stopped', 'cancelled']);
    assert.ok(callsAfter <= reservedAtMost, `${callsAfter} after the cancel`);
    await settle(send);
    const sent = provider.calls.length;
    await send.checkBooks({ accepted: sent, cancelled: 400 - sent });
    const { state, finishedAt, totals } = await send.read();
    assert.equal(state, 'cancelled');
    assert.ok(finishedAt);
    assert.deepEqual(totals?.outcomes.cancelled, 400 - sent);
    await settle(send);
    assert.deepEqual((await send.read()).finishedAt, finishedAt, 'a repeat changes nothing');
  });

  test('expiry: what is answered counts, the rest ends as expired and is not sent late', async () => {
    const send = await bench.launch({ devices: 400, message: { title: 't', ttlSeconds: 3_600 } });
    const { provider, result } = await changeInMidBatch(send, 100, () =>
      bench.database.pool.query(`update notifications set expires_at = now() where id = $1`, [send.id]),
    );
    assert.deepEqual([result.status, result.reason], ['finished', 'expired']);
    const sent = provider.calls.length;
    assert.ok(sent <= 100 + reservedAtMost + 10);
    await send.checkBooks({ accepted: sent, expired: 400 - sent });
  });
});

test('a batch that is reached after the expiry is not sent at all', async () => {
  const send = await bench.launch({ devices: 50, message: { title: 't', ttlSeconds: 60 } });
  await bench.database.pool.query(`update notifications set expires_at = now() where id = $1`, [send.id]);
  const provider = createScriptedProvider();
  assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'finished');
  assert.equal(provider.calls.length, 0);
  await send.checkBooks({ expired: 50 });
  assert.ok((await send.rows()).every((row) => row.attempts === 0 && !row.inDoubt));
});

test('a ttl of 0 is one attempt by the provider, not an expiry before the first', async () => {
  const send = await bench.launch({ devices: 5, message: { title: 't', ttlSeconds: 0 } });
  await bench.worker({ provider: createScriptedProvider() }).deliver(send.batches[0]!);
  await send.checkBooks({ accepted: 5 });
});

describe('cancelled after', () => {
  test('a refusal for now: cancelled, with the attempt and its reason', async () => {
    const send = await bench.launch({ devices: 3 });
    const provider = createScriptedProvider(() => ({
      ...{ kind: 'later', httpStatus: 503, reason: 'ServiceUnavailable', scope: 'device', afterMs: 60_000 },
    }));
    await bench.worker({ provider, retryMaxMs: 60_000 }).deliver(send.batches[0]!);
    await cancelNotification(bench.database.db, 1, send.id);
    await settle(send);
    await send.checkBooks({ cancelled: 3 });
    for (const row of await send.rows()) {
      assert.deepEqual([row.attempts, row.reason, row.inDoubt], [1, 'ServiceUnavailable', false]);
    }
  });

  test('an attempt without an answer: unknown, and the attempt counts once', async () => {
    const send = await bench.launch({ devices: 3 });
    const provider = createScriptedProvider(() => ({ kind: 'unanswered', httpStatus: null, reason: 'deadline' }));
    await bench.worker({ provider, retryBaseMs: 60_000, retryMaxMs: 60_000 }).deliver(send.batches[0]!);
    await cancelNotification(bench.database.db, 1, send.id);
    await settle(send);
    await send.checkBooks({ unknown: 3 });
    for (const row of await send.rows()) {
      assert.deepEqual([row.attempts, row.reason, row.inDoubt], [1, 'deadline', true]);
    }
  });

  test('a crash with requests under way: those may have got it and end as unknown, the rest as cancelled', async () => {
    const send = await bench.launch({ devices: 200 });
    const never = gate();
    const provider = createScriptedProvider(async () => {
      await never.opened;
      return accepted;
    });
    const zombie = bench.worker({ provider, windowSize }).deliver(send.batches[0]!);
    await until(() => provider.open === 5);
    await cancelNotification(bench.database.db, 1, send.id);
    await settle(send);
    never.open();
    assert.equal((await zombie).status, 'stopped');
    const counts = await send.counts();
    assert.equal(counts.unknown! + counts.cancelled!, 200);
    assert.ok(counts.unknown! >= 5 && counts.unknown! <= reservedAtMost);
    const handedOver = provider.calls.map((call) => call.deviceId);
    for (const row of await send.rows()) {
      if (handedOver.includes(row.deviceId)) assert.equal(row.outcome, 'unknown');
    }
    await send.checkBooks();
  });

  test('nothing at all, before a single batch was planned: everybody ends as cancelled', async () => {
    const send = await bench.launch({ devices: 70 });
    await bench.database.pool.query(`delete from batches where notification_id = $1`, [send.id]);
    await bench.database.pool.query(
      `update notifications set planned_at = null, plan_cursor = 0, batch_count = 0, audience_size = 0 where id = $1`,
      [send.id],
    );
    await cancelNotification(bench.database.db, 1, send.id);
    await settle(send);
    await send.checkBooks({ cancelled: 70 });
    assert.ok((await send.read()).finishedAt);
  });
});

describe('when the worker shuts down', () => {
  async function shutDown(environment: MockActivityEnvironment, after: () => boolean) {
    await until(after);
    environment.cancel('WORKER_SHUTDOWN');
  }

  test('what is under way is answered and recorded, another worker goes on at once, nobody is in doubt', async () => {
    const send = await bench.launch({ devices: 300 });
    const answers = gate();
    const first = createScriptedProvider(async ({ number }) => {
      if (number > 50) await answers.opened;
      return accepted;
    });
    const environment = activityEnvironment();
    const running = bench
      .worker({ provider: first, windowSize, maxInFlight: 10 })
      .deliver(send.batches[0]!, 1, environment);
    await shutDown(environment, () => first.open === 10);
    const calls = first.calls.length;
    answers.open();
    const result = await running;
    assert.deepEqual([result.status, result.waitMs, result.reason], ['waiting', 0, 'worker shut down']);
    assert.equal(first.calls.length, calls, 'nothing more is dispatched');
    await send.checkBooks({ accepted: calls });
    const second = createScriptedProvider();
    await bench.worker({ provider: second }).deliverToEnd(send.batches[0]!);
    assert.equal(second.calls.length, 300 - calls);
    assert.ok((await send.rows()).every((row) => !row.inDoubt));
    await send.checkBooks({ accepted: 300 });
  });

  test('answers that do not come within the grace are left behind: those devices alone are in doubt', async () => {
    const send = await bench.launch({ devices: 100 });
    const never = gate();
    const first = createScriptedProvider(async ({ number }) => {
      if (number > 50) await never.opened;
      return accepted;
    });
    const environment = activityEnvironment();
    const worker = bench.worker({ provider: first, windowSize, maxInFlight: 10, shutdownGraceMs: 30 });
    const running = worker.deliver(send.batches[0]!, 1, environment);
    await shutDown(environment, () => first.open === 10);
    const result = await running;
    assert.equal(result.reason, 'worker shut down');
    assert.equal(first.open, 10);
    const hanging = new Set(first.calls.slice(-10).map((call) => call.deviceId));
    const second = createScriptedProvider();
    await bench.worker({ provider: second }).deliverToEnd(send.batches[0]!);
    never.open();
    await send.checkBooks({ accepted: 100 });
    for (const row of await send.rows()) assert.equal(row.inDoubt, hanging.has(row.deviceId));
    await checkRepeats(send, [...first.calls, ...second.calls]);
  });

  test('before it has begun, it sends nothing', async () => {
    const send = await bench.launch({ devices: 10 });
    const environment = activityEnvironment();
    environment.cancel('WORKER_SHUTDOWN');
    const provider = createScriptedProvider();
    const result = await bench.worker({ provider }).deliver(send.batches[0]!, 1, environment);
    assert.equal(result.status, 'waiting');
    assert.equal(provider.calls.length, 0);
  });
});

describe('halted before a single call', () => {
  test('when the worker has no credential for the provider', async () => {
    const send = await bench.launch({ devices: 10, provider: 'fcm' });
    const result = await bench.worker({ provider: createScriptedProvider() }).deliver(send.batches[0]!);
    assert.equal(result.status, 'stopped');
    const { state, halt } = await send.read();
    assert.equal(state, 'halted');
    assert.deepEqual(halt, { reason: 'credentials', detail: 'There is no credential for fcm.' });
    await send.checkBooks({});
  });

  test('when the payload is too large for this provider, with its size', async () => {
    const send = await bench.launch({ devices: 10, message: { title: 'too large' } });
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliver(send.batches[0]!);
    const { state, halt } = await send.read();
    assert.deepEqual([state, halt?.reason], ['halted', 'payload']);
    assert.match(halt!.detail, /5000 bytes/);
    assert.equal(provider.calls.length, 0);
    await send.checkBooks({});
  });

  test('when the batch failed nine times: somebody must look', async () => {
    const send = await bench.launch({ devices: 10 });
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliver(send.batches[0]!, 10);
    const { state, halt } = await send.read();
    assert.deepEqual([state, halt?.reason], ['halted', 'poison_batch']);
    assert.equal(provider.calls.length, 0);
    await resumeNotification(bench.database.db, 1, send.id);
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 10 });
  });
});

test('a fault that was seen before the send was resumed does not halt it again: the batch is told to go on', async () => {
  const send = await bench.launch({ devices: 3 });
  const answers = gate();
  const provider = createScriptedProvider(async () => {
    await answers.opened;
    return {
      ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken', fault: 'credentials' },
      detail: 'APNs refused the key.',
    };
  });
  const running = bench.worker({ provider }).deliver(send.batches[0]!);
  await until(() => provider.calls.length === 3);
  await pauseNotification(bench.database.db, 1, send.id);
  await resumeNotification(bench.database.db, 1, send.id);
  answers.open();
  const { status, waitMs } = await running;
  assert.deepEqual({ status, waitMs }, { status: 'deferred', waitMs: 0 });
  assert.equal((await send.read()).state, 'sending');
  await bench.worker({ provider }).deliver(send.batches[0]!);
  assert.equal((await send.read()).state, 'halted', 'it is still there');
  provider.answer = () => accepted;
  await resumeNotification(bench.database.db, 1, send.id);
  await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
  await send.checkBooks({ accepted: 3 });
});

test('a run leaves no listener behind at the signals that may end it', async () => {
  const send = await bench.launch({ devices: 3 });
  const answers = gate();
  const provider = createScriptedProvider(async () => {
    await answers.opened;
    return accepted;
  });
  const { deps } = bench.worker({ provider });
  const { appId, launchedAt, expiresAt, inDoubtPolicy } = await send.read();
  const claim = (await claimBatch(deps.db, send.id, send.batches[0]!.seq))!;
  const launch = { appId, launchedAt: launchedAt! };
  const content = { prepared: { target: 'scripted' }, expiresAt, inDoubtPolicy };
  const pending = await PendingDevices.load({ ...deps, launch, claim, content, clock: new DatabaseClock() });
  const [stop, giveUp] = [new AbortController().signal, new AbortController().signal];
  const running = new Sender({
    ...{ ...deps, appId, app: 'default', provider, pending, stop, giveUp },
    books: new BatchBooks(deps, appId, claim),
    slot: new BatchSlot({ ...deps, claim, stop }),
    ...{ acceptedBefore: 0, suspectsBefore: 0 },
    random: Math.random,
    progress: { dispatched: 0, answered: 0 },
  }).run();
  await until(() => getEventListeners(giveUp, 'abort').length > 0);
  answers.open();
  assert.equal((await running).kind, 'noneDue');
  assert.deepEqual([getEventListeners(stop, 'abort'), getEventListeners(giveUp, 'abort')], [[], []]);
  await send.checkBooks({ accepted: 3 });
});
