import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { OverloadWatch } from '../../activities/delivery/overload-watch.ts';
import { SendingSlots } from '../../activities/sending-slots.ts';
import { setRate } from '../../db/notification-moves.ts';
import { blockHost } from '../../db/provider-hosts.ts';
import { providerScope, setProviderRate } from '../../db/rate-limits.ts';
import type { Verdict } from '../../providers/provider.ts';
import { until } from '../support/until.ts';
import { accepted, createDeliveryBench, createScriptedProvider, type DeliveryBench, gate } from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
beforeEach(() => bench.database.pool.query('delete from rate_limits; delete from provider_hosts'));
after(() => bench.close());

const apns = providerScope(1, 'apns');
const production = { appId: 1, provider: 'apns', host: 'production.test', credential: 'test' } as const;

/** A provider that notes when each call came. */
function createClockedProvider() {
  const at: number[] = [];
  const provider = createScriptedProvider(() => {
    at.push(performance.now());
    return accepted;
  });
  return { provider, at };
}

/** No stretch of time holds more than the rate allows, beyond the tenth of a second that may go out at once. */
function checkRate(at: number[], ratePerSecond: number) {
  const sorted = at.toSorted((a, b) => a - b);
  const burst = Math.max(1, Math.floor(ratePerSecond / 10));
  // Windows of two workers may be reserved one after the other and dispatched together.
  const slack = 3 * burst;
  for (let i = 0; i < sorted.length; i++) {
    for (let j = i + 1; j < sorted.length; j += 7) {
      const allowed = ((sorted[j]! - sorted[i]!) / 1000) * ratePerSecond + slack;
      assert.ok(j - i + 1 <= allowed, `${j - i + 1} calls in ${sorted[j]! - sorted[i]!} ms at ${ratePerSecond}/s`);
    }
  }
  const least = ((sorted.length - slack) / ratePerSecond) * 1000;
  assert.ok(sorted.at(-1)! - sorted[0]! >= least * 0.9, `${sorted.length} calls in ${sorted.at(-1)! - sorted[0]!} ms`);
}

describe('a rate limit', () => {
  test('of the notification is shared by two workers', async () => {
    const send = await bench.launch({ devices: 240, batchSize: 120, ratePerSecond: 400 });
    const { provider, at } = createClockedProvider();
    await Promise.all(send.batches.map((batch) => bench.worker({ provider }).deliverToEnd(batch)));
    checkRate(at, 400);
    await send.checkBooks({ accepted: 240 });
  });

  test('of app and provider is shared by two notifications and two workers', async () => {
    await setProviderRate(bench.database.db, apns, 400);
    const sends = [await bench.launch({ devices: 120 }), await bench.launch({ devices: 120 })];
    const { provider, at } = createClockedProvider();
    await Promise.all(sends.map((send) => bench.worker({ provider }).deliverToEnd(send.batches[0]!)));
    checkRate(at, 400);
    for (const send of sends) await send.checkBooks({ accepted: 120 });
  });

  test('of one provider does not slow the other', async () => {
    await setProviderRate(bench.database.db, apns, 1);
    const send = await bench.launch({ devices: 300, provider: 'fcm' });
    const provider = createScriptedProvider(() => accepted, 'fcm');
    const result = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.equal(result.status, 'finished');
    await send.checkBooks({ accepted: 300 });
  });

  test('the stricter of two holds', async () => {
    await setProviderRate(bench.database.db, apns, 10_000);
    const send = await bench.launch({ devices: 100, ratePerSecond: 200 });
    const { provider, at } = createClockedProvider();
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    checkRate(at, 200);
  });

  test('changed while running is obeyed from the next window on', async () => {
    const send = await bench.launch({ devices: 2_000, ratePerSecond: 20 });
    const provider = createScriptedProvider();
    const running = bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await until(() => provider.calls.length >= 4);
    assert.ok(provider.calls.length < 100);
    await setRate(bench.database.db, 1, send.id, null);
    await running;
    await send.checkBooks({ accepted: 2_000 });
  });

  test('set while running slows down what was unlimited', async () => {
    const send = await bench.launch({ devices: 3_000 });
    let isSet = false;
    let after = 0;
    const provider = createScriptedProvider(async ({ number }) => {
      if (number === 100) {
        await setRate(bench.database.db, 1, send.id, 50);
        isSet = true;
        after = provider.calls.length;
      } else if (number > 100) await until(() => isSet);
      return accepted;
    });
    const running = bench.worker({ provider, windowSize: 20, maxInFlight: 10 }).deliverToEnd(send.batches[0]!);
    await until(() => isSet && provider.calls.length > after + 45);
    await setRate(bench.database.db, 1, send.id, null);
    await running;
    await send.checkBooks({ accepted: 3_000 });
  });
});

describe('a batch that waits for its limit', () => {
  const reserve = (slots: SendingSlots) => slots.reserveSlot({}, new AbortController().signal);
  /** Slots of a process with one batch in each of them. */
  async function fullSlots(size: number) {
    const slots = new SendingSlots(size);
    for (let i = 0; i < size; i++) await reserve(slots);
    return slots;
  }

  test('gives its slot to the next one, again and again, and goes on at its own pace', async () => {
    const slots = await fullSlots(1);
    const slow = await bench.launch({ devices: 12, ratePerSecond: 20 });
    const quick = [await bench.launch({ devices: 30 }), await bench.launch({ devices: 30 })];
    const provider = createScriptedProvider();
    const running = bench.worker({ provider, slots }).deliver(slow.batches[0]!);
    for (const send of quick) {
      await reserve(slots);
      assert.equal((await bench.worker({ provider, slots }).deliver(send.batches[0]!)).status, 'finished');
      slots.releaseSlot();
    }
    assert.ok(((await slow.counts()).accepted ?? 0) < 12, 'the slow one is still at it');
    assert.equal((await running).status, 'finished');
    await slow.checkBooks({ accepted: 12 });
  });

  test('leaves for a durable timer when it may not wait outside a slot: another batch of the send does', async () => {
    const slots = await fullSlots(2);
    const send = await bench.launch({ devices: 40, batchSize: 20, ratePerSecond: 5 });
    const provider = createScriptedProvider();
    const worker = bench.worker({ provider, slots });
    const resume = slots.park(send.id)!;
    const result = await worker.deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.reason], ['waiting', 'rate limit']);
    assert.ok(result.waitMs >= 2_000, 'not one activity for each device');
    resume();
    await setRate(bench.database.db, 1, send.id, null);
    for (const batch of send.batches) assert.equal((await worker.deliver(batch)).status, 'finished');
    await send.checkBooks({ accepted: 40 });
  });

  test('or for the first answer of a silent host gives its slot to the next one', async () => {
    const slots = await fullSlots(1);
    const silent = await bench.launch({ devices: 50 });
    const answers = gate();
    const provider = createScriptedProvider(async () => {
      await answers.opened;
      return accepted;
    });
    const running = bench.worker({ provider, slots }).deliver(silent.batches[0]!);
    await reserve(slots);
    const quick = await bench.launch({ devices: 1 });
    await bench.worker({ provider: createScriptedProvider(), slots }).deliver(quick.batches[0]!);
    await quick.checkBooks({ accepted: 1 });
    answers.open();
    assert.equal((await running).status, 'finished');
    assert.equal(slots.tryReserveSlot(), null, 'it has its slot again');
    await silent.checkBooks({ accepted: 50 });
  });

  test('counts again when it goes on: a poll that waits gets no slot until another is free', async () => {
    const slots = await fullSlots(2);
    const resume = slots.park('a')!;
    await reserve(slots);
    resume();
    assert.equal(slots.tryReserveSlot(), null);
    slots.releaseSlot();
    assert.equal(slots.tryReserveSlot(), null, 'three were held for two slots');
    const stop = new AbortController();
    const given = slots.reserveSlot({}, stop.signal);
    const asked = reserve(slots);
    stop.abort();
    await assert.rejects(given, { name: 'AbortError' });
    slots.releaseSlot();
    await asked;
  });
});

describe('a host that is blocked', () => {
  test('for long: the batch waits on a durable timer and sends nothing', async () => {
    await blockHost(bench.database.db, production, 600_000);
    const send = await bench.launch({ devices: 50 });
    const provider = createScriptedProvider();
    const result = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.reason, result.deferred], ['waiting', 'rate limit', 0]);
    assert.equal(result.host, 'production.test');
    assert.ok(result.waitMs > 500_000 && result.waitMs <= 600_000);
    assert.equal(provider.calls.length, 0);
  });

  test('as all of an app and provider, by hand, for a moment: waited for on the spot', async () => {
    const until = `now() + interval '100 milliseconds'`;
    await bench.database.pool.query(`insert into rate_limits (scope, blocked_until) values ('${apns}', ${until})`);
    const send = await bench.launch({ devices: 50 });
    const provider = createScriptedProvider();
    assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'finished');
    await send.checkBooks({ accepted: 50 });
  });

  test('until an earlier instant than now stored stays blocked until the later one', async () => {
    const { db } = bench.database;
    await blockHost(db, production, 600_000);
    await blockHost(db, production, 1_000);
    const send = await bench.launch({ devices: 1 });
    const result = await bench.worker({ provider: createScriptedProvider() }).deliver(send.batches[0]!);
    assert.ok(result.waitMs > 500_000);
  });
});

describe('a provider that refuses everybody', () => {
  const quota = (scope: 'device' | 'provider'): Verdict => ({
    ...{ kind: 'later', httpStatus: 429, reason: 'QUOTA_EXCEEDED', scope, afterMs: 60_000 },
  });
  const limits = { retryMaxMs: 120_000, retryBaseMs: 1_000 };

  test('makes every worker of the app wait, after a handful of answers', async () => {
    const sends = [await bench.launch({ devices: 500 }), await bench.launch({ devices: 500 })];
    const first = createScriptedProvider(() => quota('provider'));
    const result = await bench.worker({ provider: first, ...limits }).deliver(sends[0]!.batches[0]!);
    assert.deepEqual([result.status, result.reason], ['waiting', 'rate limit']);
    assert.ok(first.calls.length <= 15, `${first.calls.length} calls`);
    const second = createScriptedProvider();
    const other = await bench.worker({ provider: second, ...limits }).deliver(sends[1]!.batches[0]!);
    assert.deepEqual([other.status, other.reason], ['waiting', 'rate limit']);
    assert.equal(second.calls.length, 0);
  });

  test('for one device only: that device alone waits', async () => {
    const send = await bench.launch({ devices: 500 });
    const [busy] = send.deviceIds;
    const provider = createScriptedProvider(({ deviceId }) => (deviceId === busy ? quota('device') : accepted));
    const result = await bench.worker({ provider, ...limits, overload: new OverloadWatch() }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.deferred], ['deferred', 1]);
    await send.checkBooks({ accepted: 499 });
  });

  test('of many devices, one by one: they wait, the app does not', async () => {
    const send = await bench.launch({ devices: 500 });
    const provider = createScriptedProvider(({ number }) => (number % 2 === 0 ? quota('device') : accepted));
    await bench.worker({ provider, ...limits }).deliver(send.batches[0]!);
    await send.checkBooks({ accepted: 250 });
    const other = await bench.launch({ devices: 10 });
    const result = await bench.worker({ provider: createScriptedProvider() }).deliver(other.batches[0]!);
    assert.equal(result.status, 'finished');
  });
});
