/** Whole batches through the real providers to the simulator: its ledger says what the books must say. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, type TestContext, test } from 'node:test';
import { resumeNotification } from '../../db/notification-moves.ts';
import type { ApnsEnvironment, ProviderName } from '../../domain/device.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { PushProvider } from '../../providers/provider.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken, type DeviceBehaviour, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import type { Action } from '../../simulator/rules.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { until } from '../support/until.ts';
import { createDeliveryBench, type DeliveryBench, type SendOptions, type TestSend } from './harness.ts';
import { openApns, openFcm } from './real-providers.ts';

let bench: DeliveryBench;
let simulator: Simulator;
let control: SimulatorControl;
before(async () => {
  bench = await createDeliveryBench();
  simulator = await startSimulator();
  control = new SimulatorControl(simulator.controlUrl);
});
beforeEach(async () => {
  await control.resetFaults();
  await control.resetLedger();
});
after(async () => {
  await bench.close();
  await simulator.close();
});

/** Unique over the whole file, so that no test meets a device of another. */
let lastNumber = 0;

/** The instants at which waits end have come. */
async function passTime(): Promise<void> {
  const { pool } = bench.database;
  await pool.query('update deferrals set not_before = to_timestamp(0)');
  await pool.query(`update provider_hosts set blocked_until = '-infinity', next_try_at = '-infinity'`);
}

interface LaunchOptions extends SendOptions {
  behaviourOf?: (n: number) => DeviceBehaviour;
  /** That the tokens belong to; default: any. */
  environmentOf?: (n: number) => ApnsEnvironment;
}

function launch(options: LaunchOptions = {}) {
  const { behaviourOf = () => 'accept', environmentOf, provider = 'apns' } = options;
  const first = lastNumber + 1;
  lastNumber += options.devices ?? 50;
  const tokenOf = (n: number) =>
    provider === 'apns'
      ? apnsDeviceToken(first + n, behaviourOf(n), environmentOf && { environment: environmentOf(n) })
      : fcmRegistrationToken(first + n, behaviourOf(n));
  return bench.launch({ ...options, tokenOf });
}

function use(t: { after(fn: () => unknown): void }, provider: PushProvider): PushProvider {
  t.after(() => provider.close());
  return provider;
}

/** Row by row: who was accepted is in the ledger, repeats are marked, and nobody else got anything without a mark. */
async function checkLedger(send: TestSend): Promise<void> {
  const devices = await bench.database.db
    .selectFrom('devices')
    .select(['id', 'device_token'])
    .where('id', 'in', send.deviceIds)
    .execute();
  const tokenOf = new Map(devices.map((device) => [device.id, device.device_token!]));
  const rows = await send.rows();
  const entries = await control.lookup(
    send.id,
    rows.map((row) => tokenOf.get(row.deviceId)!),
  );
  rows.forEach((row, i) => {
    const { accepted } = entries[i]!;
    if (row.outcome === 'accepted') assert.ok(accepted >= 1, `${row.deviceId} is not in the ledger`);
    else if (accepted > 0) assert.equal(row.outcome, 'unknown', `${row.deviceId} got it and ended as ${row.outcome}`);
    if (accepted > 1) assert.ok(row.inDoubt, `${row.deviceId} got it ${accepted} times, unmarked`);
  });
}

const mixed: DeviceBehaviour[] = [
  ...([
    'accept',
    'unregistered',
    'accept',
    'rateLimitedOnce',
    'accept',
    'unavailableOnce',
    'internalErrorTwice',
  ] as const),
  ...([
    'accept',
    'acceptOnceUnanswered',
    'refusedOnce',
    'accept',
    'htmlError',
    'accept',
    'accept',
    'expiredToken',
  ] as const),
];

for (const [name, open] of [
  ['apns', openApns],
  ['fcm', openFcm],
] as const) {
  describe(name, () => {
    test('devices of every kind: each ends as its provider said, and the ledger agrees', async (t) => {
      const send = await launch({ devices: 600, provider: name, behaviourOf: (n) => mixed[n % mixed.length]! });
      await bench.worker({ provider: use(t, open(simulator)) }).deliverToEnd(send.batches[0]!);
      await send.checkBooks({ accepted: 520, unregistered: 80 });
      await checkLedger(send);
      const summary = await control.ledgerSummary(send.id);
      assert.equal(summary.repeats, 40);
      assert.equal(summary.protocol_errors, 0);
    });

    test('GOAWAY in mid-batch, again and again: nobody is lost, nobody gets it twice', async (t) => {
      await control.addRule({ provider: name, every: 40 }, { type: 'goaway' });
      const send = await launch({ devices: 400, provider: name });
      await bench.worker({ provider: use(t, open(simulator)), maxInFlight: 30 }).deliverToEnd(send.batches[0]!);
      await send.checkBooks();
      const { accepted = 0, unknown = 0 } = await send.counts();
      assert.equal(accepted + unknown, 400);
      await checkLedger(send);
      assert.ok((await control.ledgerSummary(send.id)).connections_opened > 1);
    });

    test('connections reset with requests under way: the worker lives, those devices alone are in doubt', async (t) => {
      await control.addRule({ provider: name, nth: 100 }, { type: 'reset' });
      await control.addRule({ provider: name, nth: 250 }, { type: 'reset' });
      const send = await launch({ devices: 400, provider: name });
      await bench.worker({ provider: use(t, open(simulator)), maxInFlight: 20 }).deliverToEnd(send.batches[0]!);
      await send.checkBooks({ accepted: 400 });
      await checkLedger(send);
      const inDoubt = (await send.rows()).filter((row) => row.inDoubt).length;
      assert.ok(inDoubt >= 1 && inDoubt <= 80, `${inDoubt} in doubt`);
    });

    test('streams reset in every way: the books say what the ledger says', async (t) => {
      const codes = ['REFUSED_STREAM', 'INTERNAL_ERROR', 'CANCEL', 'ENHANCE_YOUR_CALM'] as const;
      for (const [i, code] of codes.entries()) {
        await control.addRule({ provider: name, nth: 50 + i * 30 }, { type: 'rstStream', code, accept: i % 2 === 1 });
      }
      const send = await launch({ devices: 300, provider: name });
      await bench.worker({ provider: use(t, open(simulator)) }).deliverToEnd(send.batches[0]!);
      await send.checkBooks({ accepted: 300 });
      await checkLedger(send);
    });

    test('a connection that goes silent in mid-batch: the batch always ends, those devices alone are in doubt', async (t) => {
      const send = await launch({ devices: 300, provider: name });
      const provider = use(t, open(simulator));
      await control.addRule({ provider: name, nth: 120 }, { type: 'blackHole' });
      const result = await bench.worker({ provider, maxInFlight: 20 }).deliverToEnd(send.batches[0]!);
      assert.equal(result.status, 'finished');
      await send.checkBooks();
      await checkLedger(send);
      const inDoubt = (await send.rows()).filter((row) => row.inDoubt).length;
      assert.ok(inDoubt <= 60, `${inDoubt} in doubt`);
    });

    test('away altogether: nothing is sent, nobody loses an attempt, and the batch goes on when it is back', async (t) => {
      const listener = name === 'apns' ? 'apns-production' : 'fcm';
      await control.resetConnections();
      await control.changeSettings({ admission: 'refuse', admissionListener: listener });
      const send = await launch({ devices: 60, provider: name });
      const provider = use(t, open(simulator, { requestDeadlineMs: 100 }));
      const result = await bench.worker({ provider }).deliver(send.batches[0]!);
      assert.equal(result.status, 'waiting');
      const worker = bench.worker({ provider: use(t, open(simulator)) });
      await control.changeSettings({ admission: 'accept', admissionListener: listener });
      await until(async () => {
        await passTime();
        return (await worker.deliver(send.batches[0]!)).status === 'finished';
      });
      await send.checkBooks({ accepted: 60 });
      assert.ok((await send.rows()).every((row) => row.attempts === 1 && !row.inDoubt));
      assert.equal((await control.ledgerSummary(send.id)).repeats, 0);
    });
  });
}

const openEnded: [provider: ProviderName, name: string, action: Action][] = [
  ['fcm', '500 INTERNAL', { type: 'respond', status: 500, reason: 'INTERNAL', accept: true }],
  ['fcm', '503 UNAVAILABLE', { type: 'respond', status: 503, reason: 'UNAVAILABLE', accept: true }],
  ['fcm', 'a bare 500', { type: 'respond', status: 500, body: '', accept: true }],
  ['fcm', 'a page with 503', { type: 'html', status: 503, accept: true }],
  ['apns', '500 InternalServerError', { type: 'respond', status: 500, reason: 'InternalServerError', accept: true }],
  ['apns', 'a bare 500', { type: 'respond', status: 500, body: '', accept: true }],
  ['apns', 'a bare 503', { type: 'respond', status: 503, body: '', accept: true }],
  ['apns', 'a page with 503', { type: 'html', status: 503, accept: true }],
];
for (const [name, what, action] of openEnded) {
  describe(`${name} takes a message and then answers ${what}`, () => {
    const open = name === 'apns' ? openApns : openFcm;
    const run = async (t: TestContext, inDoubtPolicy: InDoubtPolicy) => {
      // Fewer than would hold everybody back.
      await control.addRule({ provider: name, until: 4 }, action);
      const send = await launch({ devices: 60, provider: name, inDoubtPolicy });
      await bench.worker({ provider: use(t, open(simulator)) }).deliverToEnd(send.batches[0]!);
      await checkLedger(send);
      return { send, summary: await control.ledgerSummary(send.id) };
    };

    test('under skip it is not twice at the phone', async (t) => {
      const { send, summary } = await run(t, 'skip');
      assert.deepEqual([summary.received, summary.accepted, summary.repeats], [60, 60, 0]);
      await send.checkBooks({ accepted: 56, unknown: 4 });
    });

    test('under redeliver it is sent again, with a mark', async (t) => {
      const { send, summary } = await run(t, 'redeliver');
      assert.equal(summary.repeats, 4);
      await send.checkBooks({ accepted: 60 });
      assert.equal((await send.rows()).filter(({ inDoubt }) => inDoubt).length, 4);
    });
  });
}

const refusals: [provider: ProviderName, action: Action][] = [
  ['apns', { type: 'respond', status: 503, reason: 'ServiceUnavailable' }],
  ['apns', { type: 'respond', status: 503, reason: 'Shutdown' }],
  ['apns', { type: 'respond', status: 429, reason: 'TooManyRequests' }],
  ['fcm', { type: 'respond', status: 429, reason: 'QUOTA_EXCEEDED' }],
];
for (const [name, action] of refusals) {
  const { status, reason } = action as Action & { type: 'respond' };
  test(`${name}: ${status} ${reason} is a refusal: sent again under skip too, and nobody is in doubt`, async (t) => {
    await control.addRule({ provider: name, until: 4 }, action);
    const send = await launch({ devices: 60, provider: name, inDoubtPolicy: 'skip' });
    const provider = use(t, name === 'apns' ? openApns(simulator) : openFcm(simulator));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 60 });
    assert.ok((await send.rows()).every(({ inDoubt }) => !inDoubt));
  });
}

test('a part for iOS that was stored before it was measured: iPhones are rejected without a call, Android gets the message', async (t) => {
  const message = { title: 't', fcm: { apns: { payload: { x: 'y'.repeat(5_000) } } } };
  const send = await launch({ devices: 60, provider: 'fcm', message });
  const phones = send.deviceIds.filter((_, n) => n % 2 === 0);
  await bench.database.pool.query(`update devices set platform = 'ios' where id = any ($1::bigint[])`, [phones]);
  await bench.worker({ provider: use(t, openFcm(simulator)) }).deliverToEnd(send.batches[0]!);
  await send.checkBooks({ accepted: 30, rejected: 30 });
  const rejected = (await send.rows()).filter(({ outcome }) => outcome === 'rejected');
  assert.deepEqual(
    rejected.map(({ deviceId }) => deviceId),
    phones,
  );
  assert.ok(rejected.every(({ reason, attempts }) => reason?.includes('fcm.apns.payload') && attempts === 0));
  assert.equal((await control.ledgerSummary(send.id)).received, 30);
  assert.equal((await send.read()).state, 'sending');
});

test('Apple’s sandbox refuses connections: production is sent to; then the sandbox, when it is back', async (t) => {
  const isSandbox = (n: number) => n % 5 === 0;
  const send = await launch({ devices: 300, environmentOf: (n) => (isSandbox(n) ? 'sandbox' : 'production') });
  const sandbox = send.deviceIds.filter((_, n) => isSandbox(n));
  const { pool } = bench.database;
  await pool.query(`update devices set apns_environment = 'sandbox' where id = any ($1::bigint[])`, [sandbox]);
  await control.resetConnections();
  await control.changeSettings({ admission: 'refuse', admissionListener: 'apns-sandbox' });
  const worker = bench.worker({ provider: use(t, openApns(simulator, { requestDeadlineMs: 1_000 })) });
  const result = await worker.deliver(send.batches[0]!);
  const { host } = new URL(simulator.apnsSandboxUrl);
  assert.deepEqual([result.status, result.host, result.deferred], ['waiting', host, 60]);
  await send.checkBooks({ accepted: 240 });
  assert.match((await send.read()).unreachable[0]!.error, /^connect_failed/);
  await control.changeSettings({ admission: 'accept', admissionListener: 'apns-sandbox' });
  await until(async () => {
    await passTime();
    return (await worker.deliver(send.batches[0]!)).status === 'finished';
  });
  await send.checkBooks({ accepted: 300 });
  await checkLedger(send);
  assert.ok((await send.rows()).every((row) => row.attempts === 1 && !row.inDoubt));
});

test('a revoked key: a handful of calls, halted; after the fix resume sends to all 1000 once', async (t) => {
  await control.changeSettings({ revokedKeyIds: [simulator.files.apnsKeyId] });
  const send = await launch({ devices: 1_000 });
  const provider = use(t, openApns(simulator));
  await bench.worker({ provider }).deliver(send.batches[0]!);
  const { state, halt } = await send.read();
  assert.deepEqual([state, halt?.reason], ['halted', 'credentials']);
  assert.ok((await control.ledgerSummary(send.id)).received <= 10);
  await send.checkBooks({});
  await control.changeSettings({ revokedKeyIds: [] });
  await resumeNotification(bench.database.db, 1, send.id);
  const repaired = use(t, openApns(simulator));
  await bench.worker({ provider: repaired }).deliverToEnd(send.batches[0]!);
  await send.checkBooks({ accepted: 1_000 });
  assert.equal((await control.ledgerSummary(send.id)).repeats, 0);
});

test('every access token is revoked in mid-batch: refreshed, the refused ones sent again, nobody failed', async (t) => {
  const send = await launch({ devices: 400, provider: 'fcm' });
  const provider = use(t, openFcm(simulator));
  await control.addRule({ provider: 'fcm', from: 100, until: 400 }, { type: 'delay', latency: 5 });
  const running = bench.worker({ provider, maxInFlight: 20 }).deliverToEnd(send.batches[0]!);
  await until(async () => (await control.ledgerSummary(send.id)).received > 110);
  await control.setOauth({ revokeAll: true });
  await running;
  await send.checkBooks({ accepted: 400 });
  const summary = await control.ledgerSummary(send.id);
  assert.equal(summary.repeats, 0);
  assert.ok(summary.oauth_mints <= 3, `${summary.oauth_mints} access tokens`);
});

test('the token endpoint is away at the start: the batch waits and goes on', async (t) => {
  await control.setOauth({ fault: '503' });
  const send = await launch({ devices: 50, provider: 'fcm' });
  const worker = bench.worker({ provider: use(t, openFcm(simulator, { requestDeadlineMs: 200 })) });
  assert.equal((await worker.deliver(send.batches[0]!)).status, 'waiting');
  assert.equal((await control.ledgerSummary(send.id)).received, 0);
  await control.setOauth({ fault: null });
  await until(async () => {
    await bench.database.pool.query('update deferrals set not_before = to_timestamp(0)');
    return (await worker.deliver(send.batches[0]!)).status === 'finished';
  });
  await send.checkBooks({ accepted: 50 });
});
