import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { deviceRegistrar } from '../../db/device-registration.ts';
import { deleteDevice, findDevice } from '../../db/devices.ts';
import type { Verdict } from '../../providers/provider.ts';
import {
  accepted,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type SendOptions,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const gone = (invalidAt?: Date): Verdict => ({
  ...{ kind: 'unregistered', httpStatus: 410, reason: 'Unregistered' },
  ...(invalidAt && { invalidAt }),
});
const later: Verdict = { kind: 'later', httpStatus: 503, reason: 'Shutdown', scope: 'device', afterMs: 1 };
const externalId = (send: TestSend, n = 1) => `${send.id}-${n}`;
const read = async (send: TestSend, n = 1) => (await findDevice(bench.database.db, 1, externalId(send, n)))!;
const tokenOf = (send: TestSend, n: number) =>
  send.id.replaceAll('-', '').padEnd(60, 'f') + n.toString().padStart(4, '0');

function register(send: TestSend, deviceToken: string, n = 1) {
  return deviceRegistrar(bench.database)(1, {
    ...{ externalId: externalId(send, n), userId: null, provider: 'apns', platform: 'ios', deviceToken },
    ...{ apnsEnvironment: null, properties: undefined, locale: null, timeZone: null },
  });
}

describe('a token that the provider calls dead', () => {
  test('retires its device, with the reason', async () => {
    const send = await bench.launch({ devices: 2 });
    const provider = createScriptedProvider(({ deviceId }) => (deviceId === send.deviceIds[0] ? gone() : accepted));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    const device = await read(send);
    assert.ok(device.retiredAt);
    assert.equal(device.retiredReason, 'Unregistered');
    assert.equal((await read(send, 2)).retiredAt, null);
    await send.checkBooks({ accepted: 1, unregistered: 1 });
    const next = await bench.launch({ devices: 0 });
    assert.equal(next.batches.length, 0);
  });

  test('and was replaced by another since: the device stays alive', async () => {
    const send = await bench.launch({ devices: 1 });
    const provider = createScriptedProvider(async () => {
      await register(send, tokenOf(send, 2));
      return gone();
    });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.equal((await read(send)).retiredAt, null);
    await send.checkBooks({ unregistered: 1 });
  });

  test('and was registered again since it was read: the device stays alive', async () => {
    const send = await bench.launch({ devices: 1 });
    const provider = createScriptedProvider(async ({ deviceToken }) => {
      await register(send, deviceToken);
      return gone();
    });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.equal((await read(send)).retiredAt, null);
  });

  for (const [what, offsetMs, lives] of [
    ['older than the registration: the device stays alive', -60_000, true],
    ['later than the registration: the device is retired', 60_000, false],
    // A provider's clock may be wrong, and our read is what was sent to.
    ['in the future: the device is retired', 3_600_000, false],
  ] as const) {
    test(`at a time ${what}`, async () => {
      const send = await bench.launch({ devices: 1 });
      const registeredAt = new Date(Date.now() - 1_800_000);
      await bench.database.pool.query('update devices set registered_at = $1 where id = $2', [
        registeredAt,
        send.deviceIds[0],
      ]);
      const provider = createScriptedProvider(() => gone(new Date(registeredAt.getTime() + offsetMs)));
      await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
      assert.equal((await read(send)).retiredAt === null, lives);
      await send.checkBooks({ unregistered: 1 });
    });
  }

  test('of a device that was deleted meanwhile: recorded, nothing to retire', async () => {
    const send = await bench.launch({ devices: 1 });
    const provider = createScriptedProvider(async () => {
      await deleteDevice(bench.database.db, 1, externalId(send));
      return gone();
    });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ unregistered: 1 });
  });
});

describe('a device that changes after the audience was frozen', () => {
  test('deleted: skipped, without a call', async () => {
    const send = await bench.launch({ devices: 3 });
    await deleteDevice(bench.database.db, 1, externalId(send));
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.equal(provider.calls.length, 2);
    const row = await send.row(send.deviceIds[0]!);
    assert.deepEqual([row?.outcome, row?.reason, row?.attempts], ['skipped', 'device_gone', 0]);
    await send.checkBooks({ accepted: 2, skipped: 1 });
  });

  test('all of them deleted: skipped, and the batch is finished', async () => {
    const send = await bench.launch({ devices: 3_000 });
    await bench.database.pool.query('delete from devices where id = any($1)', [send.deviceIds]);
    const provider = createScriptedProvider();
    assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'finished');
    assert.equal(provider.calls.length, 0);
    await send.checkBooks({ skipped: 3_000 });
  });

  test('retired, or moved to another provider: skipped, without a call', async () => {
    const send = await bench.launch({ devices: 3 });
    await bench.database.pool.query(
      `update devices set retired_at = now(), retired_reason = 'token_moved' where id = $1`,
      [send.deviceIds[0]],
    );
    await bench.database.pool.query(`update devices set provider = 'fcm', platform = 'android' where id = $1`, [
      send.deviceIds[1],
    ]);
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliver(send.batches[0]!);
    await send.checkBooks({ accepted: 1, skipped: 2 });
  });

  test('registered again with another token: the message goes to the new one', async () => {
    const send = await bench.launch({ devices: 1 });
    await register(send, tokenOf(send, 9));
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.equal(provider.calls[0]!.deviceToken, tokenOf(send, 9));
  });

  test('registered again while it was deferred: the next attempt goes to the new token', async () => {
    const send = await bench.launch({ devices: 1 });
    const provider = createScriptedProvider(async ({ call }) => {
      if (call > 1) return accepted;
      await register(send, tokenOf(send, 9));
      return later;
    });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.calls[1]!.deviceToken, tokenOf(send, 9));
    await send.checkBooks({ accepted: 1 });
  });

  test('deleted while it was deferred: skipped; if the provider may have got it, unknown', async () => {
    const send = await bench.launch({ devices: 2 });
    const [refused] = send.deviceIds;
    const provider = createScriptedProvider(async ({ deviceId }) => {
      await bench.database.pool.query('delete from devices where id = $1', [deviceId]);
      return deviceId === refused ? later : { kind: 'unanswered', httpStatus: null, reason: 'reset' };
    });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ skipped: 1, unknown: 1 });
    assert.equal((await send.row(refused!))?.outcome, 'skipped');
    assert.equal((await send.row(refused!))?.attempts, 1);
  });

  test('deleted or registered again while a slow send is under way: an address is not kept for long', async (t) => {
    const send = await bench.launch({ devices: 100 });
    const monotonicMs = performance.now.bind(performance);
    let passedMs = 0;
    t.mock.method(performance, 'now', () => monotonicMs() + passedMs);
    const changed = gate();
    const provider = createScriptedProvider(async ({ number }) => {
      if (number === 10) {
        await register(send, tokenOf(send, 90), 90);
        await deleteDevice(bench.database.db, 1, externalId(send, 95));
        passedMs = 30_000;
        changed.open();
      } else if (number > 10) await changed.opened;
      return accepted;
    });
    await bench.worker({ provider, windowSize: 20, maxInFlight: 5 }).deliverToEnd(send.batches[0]!);
    assert.equal(provider.calls.find((call) => call.deviceId === send.deviceIds[89])?.deviceToken, tokenOf(send, 90));
    await send.checkBooks({ accepted: 99, skipped: 1 });
  });
});

describe('a token that moves to another device of the audience in mid-send', () => {
  const unanswered: Verdict = { kind: 'unanswered', httpStatus: null, reason: 'reset' };
  /** The first batch ends, `moves`, and the second one has the device that the token of device 1 went to: number 40. */
  async function sendAround(moves: (send: TestSend) => Promise<unknown>, verdict: Verdict, more: SendOptions = {}) {
    const send = await bench.launch({
      devices: 60,
      batchSize: 30,
      tokenOf: (n) => `${n + 1}`.padStart(64, 'a'),
      ...more,
    });
    const [first] = send.deviceIds;
    const token = (await read(send)).deviceToken!;
    const provider = createScriptedProvider(({ deviceId }) => (deviceId === first ? verdict : accepted));
    const worker = bench.worker({ provider, retryBaseMs: 60_000, retryMaxMs: 60_000 });
    await worker.deliver(send.batches[0]!);
    await moves(send);
    await register(send, token, 40);
    await worker.deliverToEnd(send.batches[1]!);
    const calls = provider.calls.filter(({ deviceToken }) => deviceToken === token).length;
    return { calls, row: await send.row(send.deviceIds[39]!), send };
  }
  const nothing = async () => {};
  let runs = 0;
  const unique = () => {
    runs += 1;
    const run = runs;
    return { tokenOf: (n: number) => `${run}f${n + 1}`.padStart(64, 'a') };
  };

  for (const [way, moves] of [
    ['registered by the other', nothing],
    ['left behind for a new one', (send: TestSend) => register(send, tokenOf(send, 99))],
    ['deleted with its device', (send: TestSend) => deleteDevice(bench.database.db, 1, externalId(send))],
  ] as const) {
    test(`${way}: its phone has the message, and the second device is skipped`, async () => {
      const { calls, row, send } = await sendAround(moves, accepted, unique());
      assert.deepEqual([calls, row?.outcome, row?.reason], [1, 'skipped', 'already_reached']);
      await send.checkBooks({ accepted: 59, skipped: 1 });
    });
  }

  test('perhaps reached before: sent to and marked, or unknown under skip', async () => {
    const redelivered = await sendAround(nothing, unanswered, unique());
    assert.deepEqual([redelivered.calls, redelivered.row?.outcome, redelivered.row?.inDoubt], [2, 'accepted', true]);
    const skipped = await sendAround(nothing, unanswered, { ...unique(), inDoubtPolicy: 'skip' });
    assert.deepEqual([skipped.calls, skipped.row?.outcome], [1, 'unknown']);
  });

  test('not reached before: sent to as if nothing had been', async () => {
    const refused: Verdict = { kind: 'rejected', httpStatus: 400, reason: 'BadPath', isPayloadFault: false };
    const { calls, row } = await sendAround(nothing, refused, unique());
    assert.deepEqual([calls, row?.outcome, row?.inDoubt], [2, 'accepted', false]);
  });
});
