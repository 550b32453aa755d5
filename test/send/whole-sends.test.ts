import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { unscheduleNotification } from '../../db/notification-moves.ts';
import { accepted } from '../delivery/harness.ts';
import { createSendBench, repeatedCalls, type SendBench } from './harness.ts';

let bench: SendBench;
before(async () => {
  bench = await createSendBench();
  await bench.startWorker();
});
beforeEach(() => {
  bench.providers.apns.answer = () => accepted;
  bench.providers.fcm.answer = () => accepted;
});
after(() => bench.close());

test('a send from launch to closed books: every device once, totals stored, the workflow says what became of it', async () => {
  const send = await bench.launch({ devices: 1_250 });
  const { totals } = await send.until('completed');
  await send.checkBooks({ accepted: 1_250 });
  assert.equal(totals?.inDoubt, 0);
  assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  const result = await send.handle.result();
  assert.equal(result.state, 'completed');
  assert.equal(result.books.pending, 0);
});

test('an audience of nobody completes with empty books', async () => {
  const send = await bench.launch({ devices: 0 });
  await send.until('completed');
  await send.checkBooks({});
});

test('two notifications at once do not mix', async () => {
  const [one, two] = await Promise.all([
    bench.launch({ devices: 600 }),
    bench.launch({ devices: 600, provider: 'fcm' }),
  ]);
  await Promise.all([one.until('completed'), two.until('completed')]);
  await one.checkBooks({ accepted: 600 });
  await two.checkBooks({ accepted: 600 });
});

test('no device, no device token and no list of ids is in a history', async () => {
  const send = await bench.launch({ devices: 300 });
  await send.until('completed');
  await send.handle.result();
  const tokens = await bench.api.database.db
    .selectFrom('devices')
    .select('device_token')
    .where('id', 'in', send.deviceIds)
    .execute();
  for (const id of [send.handle.workflowId, `${send.handle.workflowId}/batch-1`]) {
    const history = JSON.stringify(await bench.temporal.client.workflow.getHandle(id).fetchHistory());
    const text = history.replace(
      /"(data)":\s*"([^"]*)"/g,
      (_, name, data) => name + Buffer.from(data, 'base64').toString(),
    );
    for (const { device_token } of tokens) assert.ok(!text.includes(device_token!));
    assert.ok(history.length < 200_000, `${history.length} characters`);
  }
});

describe('a device that must wait for long', () => {
  test('holds up no other batch of its send, however many batches have one', async () => {
    // One device of each batch is refused for an hour: more batches than may be open at once.
    const send = await bench.launch({ devices: 1_200, isLaunched: false });
    const slow = new Set(send.deviceIds.filter((_, n) => n % 100 === 50));
    bench.providers.apns.answer = ({ deviceId, call }) =>
      slow.has(deviceId) && call === 1
        ? { kind: 'later', httpStatus: 429, reason: 'TooManyRequests', scope: 'device', afterMs: 3_600_000 }
        : accepted;
    await send.call('launch');
    await send.untilDone(1_188);
    assert.equal((await send.read()).books.pending, 12);
    await send.call('cancel');
    await send.until('cancelled');
    await send.checkBooks({ accepted: 1_188, cancelled: 12 });
  });
});

describe('a scheduled send', () => {
  test('begins at its time, not before', async () => {
    const at = new Date(Date.now() + 600);
    const send = await bench.launch({ devices: 10, scheduledAt: at });
    assert.equal((await send.read()).state, 'scheduled');
    const { launchedAt } = await send.until('completed');
    assert.ok(launchedAt!.getTime() >= at.getTime());
    await send.checkBooks({ accepted: 10 });
  });

  test('moved to an earlier time begins then', async () => {
    const send = await bench.launch({ devices: 10, scheduledAt: new Date(Date.now() + 3_600_000) });
    await send.call('launch', { scheduled_at: new Date(Date.now() + 50).toISOString() });
    await send.until('completed');
  });

  test('taken back is a draft whose workflow ends; scheduled again it begins at the new time', async () => {
    const send = await bench.launch({ devices: 10, scheduledAt: new Date(Date.now() + 3_600_000) });
    await send.call('unschedule');
    await send.handle.result();
    assert.equal((await send.read()).state, 'draft');
    await send.call('launch', { scheduled_at: new Date(Date.now() + 50).toISOString() });
    await send.until('completed');
    await send.checkBooks({ accepted: 10 });
  });

  test('taken back without a word to its workflow is not sent at the old time', async () => {
    const send = await bench.launch({ devices: 10, scheduledAt: new Date(Date.now() + 1_000) });
    const taken = await unscheduleNotification(bench.api.database.db, 1, send.id);
    assert.equal(taken?.ok, true);
    await send.handle.result();
    assert.equal((await send.read()).state, 'draft');
    await send.checkBooks({});
  });

  test('cancelled sends nothing, and its workflow ends', async () => {
    const send = await bench.launch({ devices: 10, scheduledAt: new Date(Date.now() + 3_600_000) });
    await send.call('cancel');
    await send.handle.result();
    assert.equal((await send.read()).state, 'cancelled');
    await send.checkBooks({});
  });
});
