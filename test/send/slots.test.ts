import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createSendBench, repeatedCalls, type SendBench } from './harness.ts';

let bench: SendBench;
before(async () => {
  bench = await createSendBench();
  await bench.startWorker({ concurrentBatches: 4 });
});
after(() => bench.close());

test('as many slow sends as there are slots keep nobody waiting: a send to one device ends before any of them', async () => {
  const slow = [];
  for (let i = 0; i < 4; i++) slow.push(await bench.launch({ devices: 60, ratePerSecond: 1 }));
  for (const send of slow) await send.untilDone(1);
  const quick = await bench.launch({ devices: 1 });
  await quick.until('completed');
  for (const send of slow) {
    const { state, books } = await send.read();
    assert.deepEqual([state, books.pending > 0], ['sending', true]);
    await send.call('cancel');
  }
  for (const send of slow) {
    await send.until('cancelled');
    await send.checkBooks();
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  }
});

test('a slow send is paced by one activity, not by one for each device', async () => {
  const send = await bench.launch({ devices: 40, ratePerSecond: 20 });
  await send.until('completed');
  await send.checkBooks({ accepted: 40 });
  const batch = bench.temporal.client.workflow.getHandle(`${send.handle.workflowId}/batch-1`);
  const { events = [] } = await batch.fetchHistory();
  const activities = events!.filter((event) => event.activityTaskScheduledEventAttributes);
  assert.equal(activities.length, 1);
});
