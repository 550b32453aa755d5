import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accepted, createDeliveryBench, createScriptedProvider, type DeliveryBench } from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

test('every device of a batch is sent to once and recorded once', async () => {
  const send = await bench.launch({ devices: 2_500 });
  const provider = createScriptedProvider();
  const result = await bench.worker({ provider }).deliver(send.batches[0]!);
  assert.equal(result.status, 'finished');
  assert.equal(provider.calls.length, 2_500);
  assert.equal(new Set(provider.calls.map((call) => call.deviceId)).size, 2_500);
  await send.checkBooks({ accepted: 2_500 });
  assert.ok((await send.rows()).every((row) => row.attempts === 1 && !row.inDoubt && row.httpStatus === 200));
});

test('a batch may be set larger than any that is planned by itself, and than 65 535 devices', async () => {
  const send = await bench.launch({ devices: 70_000, batchSize: 70_000 });
  assert.deepEqual(
    send.batches.map(({ size }) => size),
    [70_000],
  );
  const provider = createScriptedProvider();
  assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'finished');
  await send.checkBooks({ accepted: 70_000 });
  assert.equal((await send.row(send.deviceIds.at(-1)!))?.outcome, 'accepted');
});

for (const [keepMessageIds, kept] of [
  [true, 30],
  [false, 0],
] as const) {
  test(`the provider's ids of its messages are ${keepMessageIds ? 'recorded' : 'left out where a setting says so'}`, async () => {
    const send = await bench.launch({ devices: 30 });
    const provider = createScriptedProvider(({ deviceId }) => ({ ...accepted, providerMessageId: `0:${deviceId}%a` }));
    await bench.worker({ provider, keepMessageIds }).deliver(send.batches[0]!);
    const lines = bench.database.db
      .selectFrom('deliveries')
      .select(['device_id', 'provider_message_id'])
      .where('notification_id', '=', send.id);
    const withIds = (await lines.execute()).filter((line) => line.provider_message_id !== null);
    assert.equal(withIds.length, kept);
    for (const line of withIds) assert.equal(line.provider_message_id, `0:${line.device_id}%a`);
  });
}

test('a batch that is finished sends nothing more', async () => {
  const send = await bench.launch({ devices: 30 });
  const provider = createScriptedProvider();
  await bench.worker({ provider }).deliver(send.batches[0]!);
  const result = await bench.worker({ provider }).deliver(send.batches[0]!);
  assert.equal(result.status, 'finished');
  assert.equal(provider.calls.length, 30);
});

test('the books it reports are those of the whole notification', async () => {
  const send = await bench.launch({ devices: 100, batchSize: 30 });
  const sizes = send.batches.map((batch) => batch.size);
  assert.equal(sizes.length, 4);
  const { books } = await bench.worker({ provider: createScriptedProvider() }).deliver(send.batches[0]!);
  assert.equal(books.audience, 100);
  assert.equal(books.pending, 100 - sizes[0]!);
  assert.equal(books.batchesFinished, 1);
});

test('a device whose message is refused fails alone, with its own reason; nobody is sent to again', async () => {
  const send = await bench.launch({ devices: 500 });
  const bad = send.deviceIds[250]!;
  const provider = createScriptedProvider(({ deviceId }) =>
    deviceId === bad
      ? { kind: 'rejected', httpStatus: null, reason: 'invalid_device_token', isPayloadFault: false }
      : accepted,
  );
  const result = await bench.worker({ provider }).deliver(send.batches[0]!);
  assert.equal(result.status, 'finished');
  assert.equal(provider.calls.length, 500);
  await send.checkBooks({ accepted: 499, rejected: 1 });
  assert.equal((await send.row(bad))?.reason, 'invalid_device_token');
});

test('a provider’s words are stored whatever they hold', async () => {
  const send = await bench.launch({ devices: 4 });
  const words = ['NUL \u0000 in it', 'tab\tline\nreturn\rback\\slash\\N', '\ud800 alone', 'x'.repeat(5_000)];
  const provider = createScriptedProvider(({ deviceId }) => ({
    ...{ kind: 'rejected', httpStatus: 400, isPayloadFault: false },
    reason: words[send.deviceIds.indexOf(deviceId)]!,
  }));
  await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
  assert.deepEqual(
    (await send.rows()).map((row) => row.reason),
    ['NUL \ufffd in it', 'tab\tline\nreturn\rback\\slash\\N', '\ufffd alone', 'x'.repeat(200)],
  );
});

test('before anything shows that the configuration works, only a handful is under way', async () => {
  const send = await bench.launch({ devices: 200 });
  let most = 0;
  const provider = createScriptedProvider(async ({ number }) => {
    most = Math.max(most, number > 5 ? 0 : provider.open);
    await new Promise((resolve) => setTimeout(resolve, 5));
    return accepted;
  });
  await bench.worker({ provider }).deliver(send.batches[0]!);
  assert.ok(most <= 5);
  await send.checkBooks({ accepted: 200 });
});

test('never more is under way than allowed', async () => {
  const send = await bench.launch({ devices: 300 });
  let most = 0;
  const provider = createScriptedProvider(async () => {
    most = Math.max(most, provider.open);
    await new Promise((resolve) => setTimeout(resolve, 1));
    return accepted;
  });
  await bench.worker({ provider, maxInFlight: 17 }).deliver(send.batches[0]!);
  assert.ok(most <= 17, `${most}`);
  await send.checkBooks({ accepted: 300 });
});
