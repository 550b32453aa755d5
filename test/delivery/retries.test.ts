import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SendingSlots } from '../../activities/sending-slots.ts';
import type { Verdict } from '../../providers/provider.ts';
import {
  accepted,
  checkRepeats,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const later = (more: Partial<Verdict & { kind: 'later' }> = {}): Verdict => ({
  ...{ kind: 'later', httpStatus: 503, reason: 'ServiceUnavailable', scope: 'device' },
  ...more,
});
const unanswered: Verdict = { kind: 'unanswered', httpStatus: null, reason: 'deadline' };
const unsent: Verdict = { kind: 'unsent', reason: 'connect_failed', afterMs: 1 };

const deferralsOf = (send: TestSend) =>
  bench.database.db
    .selectFrom('deferrals')
    .select(['device_id', 'attempts', 'doubts', 'reason', 'not_before'])
    .where('notification_id', '=', send.id)
    .orderBy('device_id')
    .execute();

/** Time passes: every deferred device may be tried now. */
const passTime = (send: TestSend) =>
  bench.database.pool.query(`update deferrals set not_before = to_timestamp(0) where notification_id = $1`, [send.id]);

describe('refused for now', () => {
  test('twice 500, then 200: three attempts, accepted', async () => {
    const send = await bench.launch({ devices: 10 });
    const provider = createScriptedProvider(({ call }) => (call <= 2 ? later({ httpStatus: 500 }) : accepted));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 10 });
    assert.ok((await send.rows()).every((row) => row.attempts === 3 && !row.inDoubt));
    assert.deepEqual(await deferralsOf(send), []);
  });

  test('for ever: the attempts are spent, it ends as failed with the last reason, and nobody else waits for it', async () => {
    const send = await bench.launch({ devices: 100 });
    const [stubborn] = send.deviceIds;
    const provider = createScriptedProvider(({ deviceId, call }) =>
      deviceId === stubborn ? later({ httpStatus: 500, reason: `InternalServerError ${call}` }) : accepted,
    );
    await bench.worker({ provider, maxAttempts: 4 }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.callsFor(stubborn!), 4);
    assert.deepEqual(await send.row(stubborn!), {
      deviceId: stubborn,
      outcome: 'failed',
      reason: 'retry_exhausted: InternalServerError 4',
      attempts: 4,
      inDoubt: false,
      httpStatus: 500,
    });
    assert.equal(provider.calls.length, 103);
    const lastOfOthers = provider.calls.findLastIndex((call) => call.deviceId !== stubborn);
    assert.ok(provider.calls.findIndex((call) => call.deviceId === stubborn && call.call === 2) > lastOfOthers);
    await send.checkBooks({ accepted: 99, failed: 1 });
  });

  test('a dead token gets exactly one call', async () => {
    const send = await bench.launch({ devices: 10 });
    const provider = createScriptedProvider(() => ({
      ...{ kind: 'unregistered', httpStatus: 410, reason: 'Unregistered' },
    }));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.calls.length, 10);
    await send.checkBooks({ unregistered: 10 });
  });

  test('waits grow with each attempt, spread over their whole range', async () => {
    for (const random of [0.1, 0.5, 0.999]) {
      const send = await bench.launch({ devices: 1 });
      const provider = createScriptedProvider(() => later());
      const worker = bench.worker({
        ...{ provider, retryBaseMs: 60_000, retryMaxMs: 200_000, maxAttempts: 6, random: () => random },
      });
      const waits: number[] = [];
      for (;;) {
        const result = await worker.deliver(send.batches[0]!);
        if (result.status !== 'deferred') break;
        assert.equal(result.deferred, 1);
        waits.push(result.waitMs);
        await passTime(send);
      }
      const expected = [60_000, 120_000, 200_000, 200_000, 200_000].map((ceiling, i) =>
        Math.min(200_000, 60_000 * 2 ** i * random, ceiling),
      );
      assert.equal(waits.length, 5);
      waits.forEach((wait, i) => {
        // The rest of the wait is reported, so the time that the test itself took is missing.
        assert.ok(wait <= Math.max(50, expected[i]! + 1), `wait ${i}: ${wait} of ${expected[i]}`);
        assert.ok(wait >= expected[i]! - 10_000, `wait ${i}: ${wait} of ${expected[i]}`);
      });
    }
  });

  test('a wait of up to two seconds is sat out in the call, without a slot; a longer one is reported', async () => {
    const send = await bench.launch({ devices: 20 });
    let parked = 0;
    const provider = createScriptedProvider(({ deviceId, call }) => {
      if (call === 1) return later({ afterMs: 300 });
      return deviceId === send.deviceIds[0] && call === 2 ? later({ afterMs: 60_000 }) : accepted;
    });
    const slots = new SendingSlots(1);
    const park = slots.park.bind(slots);
    slots.park = (key) => {
      parked += 1;
      return park(key);
    };
    const worker = bench.worker({ provider, slots, retryBaseMs: 1, retryMaxMs: 600_000 });
    const result = await worker.deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.deferred], ['deferred', 1]);
    // Once, unless the machine was so busy that they were refused one after the other.
    assert.ok(parked >= 1 && parked <= 5, `${parked}`);
    assert.ok(result.waitMs > 30_000, `${result.waitMs}`);
    assert.equal(provider.calls.length, 40);
    await send.checkBooks({ accepted: 19 });
  });

  test('Retry-After is waited for, within the policy’s own limit', async () => {
    for (const [afterMs, expected] of [
      [300_000, 300_000],
      [86_400_000, 600_000],
    ] as const) {
      const send = await bench.launch({ devices: 2 });
      const provider = createScriptedProvider(() => later({ httpStatus: 429, reason: 'QUOTA_EXCEEDED', afterMs }));
      const result = await bench.worker({ provider, retryMaxMs: 600_000 }).deliver(send.batches[0]!);
      assert.equal(result.status, 'deferred');
      assert.ok(result.waitMs > expected - 30_000 && result.waitMs <= expected, `${result.waitMs}`);
    }
  });

  test('a deferred device waits in the books: another worker goes on with it, its attempts counted', async () => {
    const send = await bench.launch({ devices: 20 });
    const slow = new Set(send.deviceIds.slice(0, 3));
    const first = createScriptedProvider(({ deviceId }) =>
      slow.has(deviceId) ? later({ afterMs: 60_000 }) : accepted,
    );
    const result = await bench.worker({ provider: first, retryMaxMs: 100_000 }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.deferred], ['deferred', 3]);
    assert.deepEqual(
      (await deferralsOf(send)).map(({ device_id, attempts, doubts }) => [device_id, attempts, doubts]),
      [...slow].map((deviceId) => [deviceId, 1, 0]),
    );
    await send.checkBooks({ accepted: 17 });

    const second = createScriptedProvider();
    const early = await bench.worker({ provider: second }).deliver(send.batches[0]!);
    assert.equal(early.status, 'deferred');
    assert.ok(early.waitMs > 30_000);
    assert.equal(second.calls.length, 0, 'nobody before the time');
    await passTime(send);
    assert.equal((await bench.worker({ provider: second }).deliver(send.batches[0]!)).status, 'finished');
    assert.deepEqual(
      second.calls.map((call) => call.deviceId),
      [...slow],
    );
    for (const deviceId of slow) {
      const row = await send.row(deviceId);
      assert.deepEqual([row?.outcome, row?.attempts, row?.inDoubt], ['accepted', 2, false]);
    }
  });

  test('a wait that would end after the expiry is not waited for: expired at once', async () => {
    const send = await bench.launch({ devices: 3, message: { title: 't', ttlSeconds: 60 } });
    const provider = createScriptedProvider(() => later({ afterMs: 120_000 }));
    const result = await bench.worker({ provider, retryMaxMs: 600_000 }).deliver(send.batches[0]!);
    assert.equal(result.status, 'finished');
    await send.checkBooks({ expired: 3 });
    assert.ok((await send.rows()).every((row) => row.attempts === 1 && row.reason === 'ServiceUnavailable'));
  });
});

describe('what is no fault of the device', () => {
  const everybodyRefused: Verdict = {
    ...{ kind: 'later', httpStatus: 429, reason: 'TooManyProviderTokenUpdates', scope: 'account', afterMs: 1 },
  };
  const serverError: Verdict = { kind: 'unanswered', httpStatus: 500, reason: 'InternalServerError' };

  test('spends no attempts of it, however long it lasts', async () => {
    const send = await bench.launch({ devices: 3 });
    const provider = createScriptedProvider(() => everybodyRefused);
    const worker = bench.worker({ provider, maxAttempts: 3 });
    for (let round = 0; round < 8; round++) {
      const { status } = await worker.deliver(send.batches[0]!);
      assert.ok(status === 'deferred' || status === 'waiting', status);
      await passTime(send);
      await bench.database.pool.query(`update rate_limits set blocked_until = '-infinity'`);
    }
    provider.answer = () => accepted;
    await worker.deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 3 });
  });

  test('an outage in which every answer is an error is met by a handful of requests at a time, and costs a handful', async () => {
    const send = await bench.launch({ devices: 2_000 });
    const provider = createScriptedProvider(({ number }) => (number <= 500 ? accepted : serverError));
    const worker = bench.worker({ provider, maxInFlight: 50 });
    const first = await worker.deliver(send.batches[0]!);
    assert.deepEqual([first.status, first.reason], ['waiting', 'provider fails']);
    assert.ok(provider.calls.length <= 700, `${provider.calls.length} calls, of which 500 were accepted`);
    for (let probe = 0; probe < 5; probe++) {
      await bench.database.pool.query(`update rate_limits set blocked_until = '-infinity'`);
      const before = provider.calls.length;
      assert.equal((await worker.deliver(send.batches[0]!)).status, 'waiting');
      assert.ok(provider.calls.length - before <= 10, `${provider.calls.length - before} calls of one probe`);
    }
    await send.checkBooks({ accepted: 500 });
    provider.answer = () => accepted;
    await worker.deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 2_000 });
    await checkRepeats(send, provider.calls);
    const marked = (await send.rows()).filter((row) => row.inDoubt).length;
    assert.ok(marked > 0 && marked <= 250, `${marked} are in doubt`);
  });

  test('a provider that goes silent is met by a handful at a time too', async () => {
    const send = await bench.launch({ devices: 500 });
    const provider = createScriptedProvider(() => unanswered);
    assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'waiting');
    assert.ok(provider.calls.length <= 15, `${provider.calls.length} calls`);
  });
});

describe('what was provably not processed', () => {
  test('is no attempt, and stops the batch until something can be sent again', async () => {
    const send = await bench.launch({ devices: 40 });
    let isAway = true;
    const provider = createScriptedProvider(() => (isAway ? unsent : accepted));
    const worker = bench.worker({ provider, maxAttempts: 2 });
    for (let round = 0; round < 5; round++) {
      const result = await worker.deliver(send.batches[0]!);
      assert.equal(result.status, 'waiting');
      assert.equal(result.reason, 'connect_failed');
      await passTime(send);
    }
    assert.ok(provider.calls.length <= 25, `${provider.calls.length} calls: an absent provider is asked for few`);
    isAway = false;
    await worker.deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 40 });
    assert.ok((await send.rows()).every((row) => row.attempts === 1 && !row.inDoubt));
  });
});

describe('without an answer', () => {
  test('policy redeliver: sent again a bounded number of times, marked, and accepted when it is', async () => {
    const send = await bench.launch({ devices: 10 });
    const provider = createScriptedProvider(({ call }) => (call === 1 ? unanswered : accepted));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.ok((await send.rows()).every((row) => row.outcome === 'accepted' && row.attempts === 2 && row.inDoubt));
    await checkRepeats(send, provider.calls);
    await send.checkBooks({ accepted: 10 });
  });

  test('policy redeliver: who never answers ends as unknown after the allowed repeats', async () => {
    const send = await bench.launch({ devices: 5 });
    const provider = createScriptedProvider(() => unanswered);
    await bench.worker({ provider, maxDoubts: 2 }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.calls.length, 15);
    assert.ok((await send.rows()).every((row) => row.attempts === 3 && row.inDoubt && row.reason === 'deadline'));
    await send.checkBooks({ unknown: 5 });
  });

  test('policy skip: unknown after one call', async () => {
    const send = await bench.launch({ devices: 5, inDoubtPolicy: 'skip' });
    const provider = createScriptedProvider(() => unanswered);
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.calls.length, 5);
    await send.checkBooks({ unknown: 5 });
  });

  test('a doubt is not forgotten when a later answer refuses for now, or when the time runs out', async () => {
    const send = await bench.launch({ devices: 2, message: { title: 't', ttlSeconds: 60 } });
    const [expiring, refused] = send.deviceIds;
    const provider = createScriptedProvider(({ deviceId, call }) => {
      if (call === 1) return unanswered;
      if (call === 2) return later({ afterMs: deviceId === expiring ? 120_000 : 1 });
      return accepted;
    });
    await bench.worker({ provider, retryMaxMs: 600_000 }).deliverToEnd(send.batches[0]!);
    assert.deepEqual(await send.row(expiring!), {
      ...{ deviceId: expiring, outcome: 'unknown', reason: 'ServiceUnavailable', attempts: 2, inDoubt: true },
      httpStatus: 503,
    });
    const row = await send.row(refused!);
    assert.deepEqual([row?.outcome, row?.attempts, row?.inDoubt], ['accepted', 3, true]);
  });

  test('a provider that breaks its word and throws leaves the device in doubt, and the batch goes on', async () => {
    const send = await bench.launch({ devices: 20 });
    const provider = createScriptedProvider(({ number, call }) => {
      if (number === 7 && call === 1) throw new Error('broken');
      return accepted;
    });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 20 });
    assert.equal((await send.rows()).filter((row) => row.inDoubt).length, 1);
  });
});
