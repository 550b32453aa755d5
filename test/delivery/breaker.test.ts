import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { resumeNotification } from '../../db/notification-moves.ts';
import type { ConfigurationFault, Verdict } from '../../providers/provider.ts';
import { until } from '../support/until.ts';
import {
  accepted,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type ScriptedProvider,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const misconfigured: Verdict = {
  ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken', fault: 'credentials' },
  detail: 'APNs refused the key. Check key id and team id.',
};
const suspicious = (reason: string, fault: ConfigurationFault = 'environment'): Verdict => ({
  ...{ kind: 'unregistered', httpStatus: 400, reason, suspicion: { fault, check: 'check it.' } },
});
const payloadFault: Verdict = {
  ...{ kind: 'rejected', httpStatus: 400, reason: 'INVALID_ARGUMENT', isPayloadFault: true },
  detail: 'message.android.ttl: bad value',
};

const retiredAmong = async (send: TestSend) => {
  const rows = await bench.database.db
    .selectFrom('devices')
    .select('id')
    .where('id', 'in', send.deviceIds)
    .where('retired_at', 'is not', null)
    .execute();
  return rows.map((row) => row.id);
};

/** After the fix everybody without an outcome is sent to, once, as if nothing had been. */
async function resumeAfterFix(send: TestSend, provider: ScriptedProvider): Promise<void> {
  const callsBefore = provider.calls.length;
  const recorded = (await send.rows()).length;
  provider.answer = () => accepted;
  await resumeNotification(bench.database.db, 1, send.id);
  await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
  assert.equal(provider.calls.length - callsBefore, send.deviceIds.length - recorded);
}

describe('every answer is a configuration fault', () => {
  test('stops within a handful of calls, halted in plain words; nobody failed, nobody retired; resume sends to all once', async () => {
    const send = await bench.launch({ devices: 1_000 });
    const provider = createScriptedProvider(() => misconfigured);
    const result = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.equal(result.status, 'stopped');
    assert.ok(provider.calls.length <= 5, `${provider.calls.length} calls`);
    const { state, halt } = await send.read();
    assert.equal(state, 'halted');
    assert.deepEqual(halt, { reason: 'credentials', detail: 'APNs refused the key. Check key id and team id.' });
    await send.checkBooks({});
    assert.deepEqual(await retiredAmong(send), []);

    await resumeAfterFix(send, provider);
    await send.checkBooks({ accepted: 1_000 });
    assert.ok((await send.rows()).every((row) => row.attempts === 1 && !row.inDoubt));
  });

  test('from one moment on in mid-send: halted within what was under way, nobody lost', async () => {
    const send = await bench.launch({ devices: 1_000 });
    const provider = createScriptedProvider(({ number }) => (number > 300 ? misconfigured : accepted));
    await bench.worker({ provider, maxInFlight: 50 }).deliver(send.batches[0]!);
    assert.equal((await send.read()).state, 'halted');
    assert.ok(provider.calls.length <= 400, `${provider.calls.length} calls`);
    await send.checkBooks({ accepted: 300 });
    await resumeAfterFix(send, provider);
    await send.checkBooks({ accepted: 1_000 });
    assert.ok((await send.rows()).every((row) => !row.inDoubt));
  });

  test('once, from a stray server among hundreds that accept: the device is tried again, nothing halts', async () => {
    const send = await bench.launch({ devices: 400 });
    const provider = createScriptedProvider(({ number }) => (number === 150 ? misconfigured : accepted));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 400 });
    assert.equal(provider.calls.length, 401);
  });
});

describe('one device that always meets a configuration fault', () => {
  const disallowed: Verdict = {
    ...{ kind: 'misconfigured', httpStatus: 400, reason: 'TopicDisallowed', fault: 'topic' },
    detail: 'Check the topic.',
  };

  for (const [where, batchSize] of [
    ['in its own batch', 1_000],
    ['alone in the last batch', 79],
  ] as const) {
    test(`is rejected once its attempts are spent, when nearly everybody was accepted (${where})`, async () => {
      const send = await bench.launch({ devices: 79 + 1, batchSize });
      const last = send.deviceIds.at(-1)!;
      const provider = createScriptedProvider(({ deviceId }) => (deviceId === last ? disallowed : accepted));
      for (const batch of send.batches) await bench.worker({ provider, maxAttempts: 4 }).deliverToEnd(batch);
      await send.checkBooks({ accepted: 79, rejected: 1 });
      assert.equal((await send.row(last))?.reason, 'TopicDisallowed');
      assert.equal(provider.callsFor(last), 4);
      assert.equal((await send.read()).state, 'sending');
    });
  }

  test('halts the send when it is the key that is refused: no device is rejected for it', async () => {
    const send = await bench.launch({ devices: 80 });
    const last = send.deviceIds.at(-1)!;
    const provider = createScriptedProvider(({ deviceId }) => (deviceId === last ? misconfigured : accepted));
    await bench.worker({ provider, maxAttempts: 4 }).deliverToEnd(send.batches[0]!);
    assert.deepEqual((await send.read()).halt?.reason, 'credentials');
    await send.checkBooks({ accepted: 79 });
    await resumeAfterFix(send, provider);
    await send.checkBooks({ accepted: 80 });
  });

  test('halts the send when few were accepted', async () => {
    const send = await bench.launch({ devices: 6 });
    const last = send.deviceIds.at(-1)!;
    const provider = createScriptedProvider(({ deviceId }) => (deviceId === last ? disallowed : accepted));
    await bench.worker({ provider, maxAttempts: 4 }).deliverToEnd(send.batches[0]!);
    assert.equal((await send.read()).state, 'halted');
    await send.checkBooks({ accepted: 5 });
  });
});

describe('tokens that a wrong environment, topic or project would call dead', () => {
  for (const [reason, fault] of [
    ['BadDeviceToken', 'environment'],
    ['DeviceTokenNotForTopic', 'topic'],
    ['SENDER_ID_MISMATCH', 'project'],
  ] as const) {
    test(`all of them ${reason}: halted (${fault}) after a dozen, nobody retired, resume sends to all`, async () => {
      const send = await bench.launch({ devices: 1_000 });
      const provider = createScriptedProvider(() => suspicious(reason, fault));
      await bench.worker({ provider }).deliver(send.batches[0]!);
      const { state, halt } = await send.read();
      assert.deepEqual([state, halt?.reason], ['halted', fault]);
      assert.match(halt!.detail, new RegExp(`were ${reason}`));
      assert.ok(provider.calls.length <= 15, `${provider.calls.length} calls`);
      assert.deepEqual(await retiredAmong(send), []);
      await send.checkBooks({});
      await resumeAfterFix(send, provider);
      await send.checkBooks({ accepted: 1_000 });
    });
  }

  test('a third of them: halted once the sample is full, nobody retired, nobody recorded as dead', async () => {
    const send = await bench.launch({ devices: 1_000 });
    const provider = createScriptedProvider(({ number }) =>
      number % 3 === 0 ? suspicious('BadDeviceToken') : accepted,
    );
    await bench.worker({ provider, maxInFlight: 20 }).deliver(send.batches[0]!);
    assert.equal((await send.read()).state, 'halted');
    assert.deepEqual(await retiredAmong(send), []);
    const counts = await send.counts();
    assert.deepEqual(Object.keys(counts), ['accepted']);
    assert.ok(counts.accepted! <= 200, `${counts.accepted} of the first sample`);
    await resumeAfterFix(send, provider);
    await send.checkBooks({ accepted: 1_000 });
  });

  test('one in twenty: they are dead, and retired once their sample is judged', async () => {
    const send = await bench.launch({ devices: 1_000 });
    const dead = new Set(send.deviceIds.filter((_, n) => n % 20 === 7));
    const provider = createScriptedProvider(({ deviceId }) =>
      dead.has(deviceId) ? suspicious('BadDeviceToken') : accepted,
    );
    assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'finished');
    await send.checkBooks({ accepted: 950, unregistered: 50 });
    assert.deepEqual(new Set(await retiredAmong(send)), dead);
  });

  test('the only one of a send: that token is dead', async () => {
    const send = await bench.launch({ devices: 30 });
    const [dead] = send.deviceIds;
    const provider = createScriptedProvider(({ deviceId }) =>
      deviceId === dead ? suspicious('INVALID_ARGUMENT') : accepted,
    );
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 29, unregistered: 1 });
    assert.deepEqual(await retiredAmong(send), [dead]);
  });

  test('held when the worker crashes: nobody is retired, they are in doubt and sent to again', async () => {
    const send = await bench.launch({ devices: 60 });
    const dead = new Set(send.deviceIds.slice(10, 14));
    let answered = 0;
    const never = gate();
    const first = createScriptedProvider(async ({ deviceId, number }) => {
      if (number > 40) await never.opened;
      answered += 1;
      return dead.has(deviceId) ? suspicious('BadDeviceToken') : accepted;
    });
    const zombie = bench.worker({ provider: first, windowSize: 20, maxInFlight: 5 }).deliver(send.batches[0]!);
    await until(async () => answered === 40 && (await send.rows()).length === 36);
    assert.deepEqual(await retiredAmong(send), []);
    const second = createScriptedProvider(({ deviceId }) =>
      dead.has(deviceId) ? suspicious('BadDeviceToken') : accepted,
    );
    await bench.worker({ provider: second }).deliverToEnd(send.batches[0]!);
    never.open();
    await zombie;
    await send.checkBooks({ accepted: 56, unregistered: 4 });
    assert.deepEqual(new Set(await retiredAmong(send)), dead);
  });
});

describe('the message itself is refused', () => {
  test('by all: halted (payload) after a few, with the provider’s field text; nobody retired, nobody rejected', async () => {
    const send = await bench.launch({ devices: 500 });
    const provider = createScriptedProvider(() => payloadFault);
    await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.ok(provider.calls.length <= 10, `${provider.calls.length} calls`);
    const { state, halt } = await send.read();
    assert.deepEqual([state, halt?.reason], ['halted', 'payload']);
    assert.match(halt!.detail, /message\.android\.ttl: bad value/);
    assert.deepEqual(await retiredAmong(send), []);
    await send.checkBooks({});
    await resumeAfterFix(send, provider);
    await send.checkBooks({ accepted: 500 });
  });

  test('by one among many that take it: rejected with its reason, nothing halts', async () => {
    for (const at of [1, 3, 100]) {
      const send = await bench.launch({ devices: 200 });
      const provider = createScriptedProvider(({ number }) => (number === at ? payloadFault : accepted));
      await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
      await send.checkBooks({ accepted: 199, rejected: 1 });
      assert.equal((await send.read()).state, 'sending');
    }
  });
});
