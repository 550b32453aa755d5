/** PostgreSQL's clock is the one that counts, whatever a worker's own clock says. */
import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { DatabaseClock } from '../../activities/delivery/database-clock.ts';
import { deviceRegistrar } from '../../db/device-registration.ts';
import { beginScheduledOfAnyApp } from '../../db/notification-moves.ts';
import type { Verdict } from '../../providers/provider.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { until } from '../support/until.ts';
import {
  accepted,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type TestSend,
} from './harness.ts';
import { openFcm } from './real-providers.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const query = async (text: string, values: unknown[] = []) => (await bench.database.pool.query(text, values)).rows;

/** The worker's wall clock is set; its monotonic clock and PostgreSQL's go on as they are. */
function setWallClock(t: TestContext, offsetMs: number): void {
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + offsetMs });
}

const minutes = 60_000;
for (const [name, offsetMs] of [
  ['four minutes fast', 4 * minutes],
  ['four minutes slow', -4 * minutes],
] as const) {
  describe(`a worker whose clock is ${name}`, () => {
    test('leaves a device alive that registered again since its address was read', async (t) => {
      const send = await bench.launch({ devices: 1 });
      const provider = createScriptedProvider(async ({ deviceToken }) => {
        await registerAgain(send, deviceToken);
        return { kind: 'unregistered', httpStatus: 410, reason: 'Unregistered' };
      });
      setWallClock(t, offsetMs);
      await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
      const [device] = await query('select retired_at from devices where id = $1', send.deviceIds);
      assert.equal(device.retired_at, null);
    });

    test('retires a device that registered before its address was read', async (t) => {
      const send = await bench.launch({ devices: 1 });
      const gone: Verdict = { kind: 'unregistered', httpStatus: 410, reason: 'Unregistered' };
      setWallClock(t, offsetMs);
      await bench.worker({ provider: createScriptedProvider(() => gone) }).deliverToEnd(send.batches[0]!);
      const [device] = await query('select retired_at from devices where id = $1', send.deviceIds);
      assert.ok(device.retired_at);
    });

    test('defers a device until an instant of PostgreSQL’s clock', async (t) => {
      const send = await bench.launch({ devices: 1 });
      const later: Verdict = {
        kind: 'later',
        httpStatus: 429,
        reason: 'TooManyRequests',
        scope: 'device',
        afterMs: 30_000,
      };
      setWallClock(t, offsetMs);
      const worker = bench.worker({ provider: createScriptedProvider(() => later), retryMaxMs: 30_000 });
      const result = await worker.deliver(send.batches[0]!);
      assert.ok(result.waitMs > 20_000 && result.waitMs <= 30_000, String(result.waitMs));
      const [row] = await query(
        'select extract(epoch from not_before - clock_timestamp())::float8 as seconds from deferrals where notification_id = $1',
        [send.id],
      );
      assert.ok(row.seconds > 20 && row.seconds <= 30, String(row.seconds));
    });

    test('holds the provider back until an instant of PostgreSQL’s clock', async (t) => {
      const send = await bench.launch({ devices: 20 });
      t.after(() => query('delete from provider_hosts'));
      const busy: Verdict = { kind: 'later', httpStatus: 429, reason: 'QUOTA', scope: 'provider', afterMs: 30_000 };
      setWallClock(t, offsetMs);
      const worker = bench.worker({ provider: createScriptedProvider(() => busy), retryMaxMs: 30_000 });
      await worker.deliver(send.batches[0]!);
      const [row] = await query(
        'select extract(epoch from blocked_until - clock_timestamp())::float8 as seconds from provider_hosts',
      );
      assert.ok(row.seconds > 20 && row.seconds <= 30, String(row.seconds));
    });
  });
}

describe('the time to live at FCM', () => {
  let simulator: Simulator;
  let control: SimulatorControl;
  before(async () => {
    simulator = await startSimulator();
    control = new SimulatorControl(simulator.controlUrl);
  });
  after(() => simulator.close());

  for (const offsetMs of [4 * minutes, -4 * minutes]) {
    test(`is what is left by PostgreSQL’s clock, with a worker's clock ${offsetMs / 1000} s off`, async (t) => {
      const send = await bench.launch({ provider: 'fcm', devices: 1, message: { title: 't', ttlSeconds: 3_600 } });
      const provider = openFcm(simulator);
      t.after(() => provider.close());
      // By a clock that is wrong Google would refuse the assertion: the access token is there already.
      await bench.worker({ provider }).deliverToEnd((await bench.launch({ provider: 'fcm', devices: 1 })).batches[0]!);
      setWallClock(t, offsetMs);
      await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
      const [request] = await control.recentRequests(send.id);
      const { android, webpush } = JSON.parse(request!.body).message;
      const seconds = Number.parseInt(android.ttl, 10);
      assert.ok(seconds > 3_590 && seconds < 3_600, android.ttl);
      assert.equal(webpush.headers.TTL, String(seconds));
    });
  }
});

describe('a notification whose time is up', () => {
  test('in mid-window: whoever was not sent to yet is not, and ends as expired', async () => {
    const send = await bench.launch({ devices: 40, message: { title: 't', ttlSeconds: 60 } });
    await query("update notifications set expires_at = clock_timestamp() + interval '500 ms' where id = $1", [send.id]);
    const isOver = async () =>
      (await query('select expires_at < clock_timestamp() as over from notifications where id = $1', [send.id]))[0]
        .over;
    const over = gate();
    const provider = createScriptedProvider(async () => {
      await over.opened;
      return accepted;
    });
    const delivered = bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await until(isOver, 'the time is up');
    over.open();
    await delivered;
    assert.ok(provider.calls.length <= 5, String(provider.calls.length));
    await send.checkBooks({ accepted: provider.calls.length, expired: 40 - provider.calls.length });
  });

  test('because its scheduled begin was missed: everybody ends as expired, without a call', async () => {
    const send = await bench.launch({ devices: 5, message: { title: 't', ttlSeconds: 60 } });
    await query(
      `update notifications set state = 'scheduled', launched_at = null, expires_at = null,
        scheduled_at = clock_timestamp() - interval '1 hour' where id = $1`,
      [send.id],
    );
    assert.equal(await beginScheduledOfAnyApp(bench.database.db, send.id), true);
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.calls.length, 0);
    await send.checkBooks({ expired: 5 });
  });
});

describe('what a worker knows of PostgreSQL’s clock', () => {
  function clockOf(t: TestContext) {
    let nowMs = 1_000;
    t.mock.method(performance, 'now', () => nowMs);
    return {
      clock: new DatabaseClock(),
      pass: (ms: number) => {
        nowMs += ms;
      },
      /** The answer to a statement comes `tookMs` after it was sent; the database looked at its clock then or before. */
      look(clock: DatabaseClock, databaseMs: number, tookMs: number) {
        const sentAtMs = nowMs;
        nowMs += tookMs;
        clock.look(databaseMs, sentAtMs);
      },
    };
  }

  test('goes on with the monotonic clock', (t) => {
    const { clock, pass, look } = clockOf(t);
    look(clock, 5_000_000, 0);
    pass(1_234);
    assert.equal(clock.nowMs(), 5_001_234);
    assert.deepEqual(clock.instantIn(10), new Date(5_001_244));
  });

  test('is not spoilt by a slow answer, and follows a clock that was set', (t) => {
    const { clock, look } = clockOf(t);
    look(clock, 5_000_000, 2);
    const known = clock.nowMs() - performance.now();
    look(clock, 5_001_000, 10_000);
    assert.equal(clock.nowMs() - performance.now(), known);
    look(clock, 9_000_000, 2);
    assert.ok(Math.abs(clock.nowMs() - 9_000_000) <= 2);
    look(clock, 1_000_000, 2);
    assert.ok(Math.abs(clock.nowMs() - 1_000_000) <= 2);
  });
});

function registerAgain(send: TestSend, deviceToken: string) {
  return deviceRegistrar(bench.database)(1, {
    ...{ externalId: `${send.id}-1`, userId: null, provider: 'apns', platform: 'ios', deviceToken },
    ...{ apnsEnvironment: null, properties: undefined, locale: null, timeZone: null },
  });
}
