import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Verdict } from '../../providers/provider.ts';
import { until } from '../support/until.ts';
import {
  accepted,
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

/** What FCM says while Apple refuses the key that is stored in the Firebase project. */
const appleKeyRefused: Verdict = {
  ...{ kind: 'misconfigured', httpStatus: 401, reason: 'THIRD_PARTY_AUTH_ERROR', fault: 'credentials' },
  ...{ detail: 'Apple refused the key.', isOnePlatform: true },
};

/** Apple's answer, passed on by FCM. */
const partRefused: Verdict = {
  ...{ kind: 'rejected', httpStatus: 400, reason: 'PayloadTooLarge', isPayloadFault: true, isOnePlatform: true },
};

/** An FCM audience in which every `every`th device is an iPhone. */
async function launchMixed(devices: number, every: number, batchSize = 10_000) {
  const send = await bench.launch({ devices, provider: 'fcm', batchSize });
  const phones = new Set(send.deviceIds.filter((_, n) => n % every === 0));
  await bench.database.pool.query(`update devices set platform = 'ios' where id = any ($1::bigint[])`, [[...phones]]);
  const provider = createScriptedProvider(({ deviceId }) => (phones.has(deviceId) ? appleKeyRefused : accepted), 'fcm');
  const phoneCalls = () => provider.calls.filter(({ deviceId }) => phones.has(deviceId)).length;
  return { send, phones, provider, phoneCalls };
}

function resume(send: TestSend) {
  return bench.database.pool.query(
    `update notifications set state = 'sending', halt_reason = null, halt_detail = null where id = $1`,
    [send.id],
  );
}

describe('a fault of one platform', () => {
  test('keeps its devices waiting and nobody else; then the send is halted, and resume sends to them', async () => {
    const { send, phones, provider, phoneCalls } = await launchMixed(600, 3);
    const worker = bench.worker({ provider, maxInFlight: 20 });
    const result = await worker.deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.reason], ['stopped', 'credentials']);
    await send.checkBooks({ accepted: 400 });
    assert.ok(phoneCalls() <= 20, `${phoneCalls()} calls`);
    const halted = await send.read();
    assert.deepEqual([halted.state, halted.halt?.reason, halted.books.pending], ['halted', 'credentials', phones.size]);

    await resume(send);
    provider.answer = () => accepted;
    assert.equal((await worker.deliver(send.batches[0]!)).status, 'finished');
    await send.checkBooks({ accepted: 600 });
    const rows = await send.rows();
    assert.ok(rows.every(({ attempts, inDoubt }) => attempts === 1 && !inDoubt));
    assert.equal(provider.calls.filter(({ deviceId }) => !phones.has(deviceId)).length, 400);
  });

  test('does not halt the send while other batches have devices that nobody has tried', async () => {
    const { send, phones, provider } = await launchMixed(400, 2, 200);
    const worker = bench.worker({ provider });
    const first = await worker.deliver(send.batches[0]!);
    assert.deepEqual([first.status, first.deferred], ['deferred', 100]);
    assert.ok(first.waitMs > 1_000);
    assert.equal((await send.read()).state, 'sending');
    const before = provider.calls.length;
    assert.equal((await worker.deliver(send.batches[0]!)).status, 'deferred');
    assert.ok(provider.calls.length - before <= 5, `${provider.calls.length - before} calls`);

    assert.equal((await worker.deliver(send.batches[1]!)).status, 'stopped');
    await send.checkBooks({ accepted: 200 });
    assert.deepEqual([(await send.read()).state, phones.size], ['halted', 200]);
  });

  test('does not halt the send while another batch is under way', async () => {
    const { send, phones, provider } = await launchMixed(400, 2, 200);
    const refused = provider.answer;
    const answers = gate();
    const late = new Set(send.deviceIds.slice(200));
    provider.answer = async (call) => {
      if (late.has(call.deviceId) && !phones.has(call.deviceId)) await answers.opened;
      return refused(call);
    };
    const worker = bench.worker({ provider });
    const second = worker.deliver(send.batches[1]!);
    await until(() => provider.open > 0);
    // As when all of it is reserved and some of it not answered.
    await bench.database.pool.query(`update batches set horizon = size where notification_id = $1 and seq = 2`, [
      send.id,
    ]);
    assert.equal((await worker.deliver(send.batches[0]!)).status, 'deferred');
    assert.equal((await send.read()).state, 'sending');
    answers.open();
    assert.equal((await second).status, 'stopped');
    await send.checkBooks({ accepted: 200 });
  });

  test('waits for devices of the others that were refused for now', async () => {
    const { send, phones, provider } = await launchMixed(100, 2);
    const [busy] = send.deviceIds.filter((id) => !phones.has(id));
    const refused = provider.answer;
    const later: Verdict = { kind: 'later', httpStatus: 503, reason: 'UNAVAILABLE', scope: 'device', afterMs: 5_000 };
    provider.answer = (call) => (call.deviceId === busy ? later : refused(call));
    const worker = bench.worker({ provider, retryMaxMs: 120_000 });
    const result = await worker.deliver(send.batches[0]!);
    assert.equal(result.status, 'deferred');
    assert.ok(result.waitMs > 1_000 && result.waitMs <= 30_000, `${result.waitMs} ms`);
    await send.checkBooks({ accepted: 49 });
  });

  test('of an audience that has no other is a fault of the send: a handful of calls, then it is halted', async () => {
    const { send, provider } = await launchMixed(600, 1);
    const result = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.reason], ['stopped', 'credentials']);
    assert.ok(provider.calls.length <= 5, `${provider.calls.length} calls`);
    await send.checkBooks({});
  });

  test('in the message itself rejects its devices, and the others are sent to', async () => {
    const { send, phones, provider } = await launchMixed(60, 2);
    const refused = provider.answer;
    provider.answer = (call) => (phones.has(call.deviceId) ? partRefused : refused(call));
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 30, rejected: 30 });
    assert.equal((await send.read()).state, 'sending');
  });

  test('in the message itself, of an audience that has no other, halts after a handful', async () => {
    const { send, provider } = await launchMixed(600, 1);
    provider.answer = () => partRefused;
    await bench.worker({ provider }).deliver(send.batches[0]!);
    const { state, halt } = await send.read();
    assert.deepEqual([state, halt?.reason], ['halted', 'payload']);
    assert.ok(provider.calls.length <= 5, `${provider.calls.length} calls`);
  });

  test('that ends with its worker leaves nobody in doubt who was not sent to', async () => {
    const { send, phones, provider } = await launchMixed(300, 3);
    await bench.worker({ provider }).deliver(send.batches[0]!);
    await resume(send);
    const policy = `update notifications set in_doubt_policy = 'skip' where id = $1`;
    await bench.database.pool.query(policy, [send.id]);
    provider.answer = () => accepted;
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 300 });
    assert.equal(phones.size, 100);
  });
});
