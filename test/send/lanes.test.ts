/** Messages to one person through the real API, PostgreSQL, Temporal and workflows. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { openLanesOfAllApps } from '../../db/lanes.ts';
import { laneWorkflowId } from '../../domain/ids.ts';
import { accepted, gate } from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { createSendBench, type RunningWorker, type SendBench } from './harness.ts';

let bench: SendBench;
let worker: RunningWorker;
before(async () => {
  bench = await createSendBench();
  await sql`
    insert into devices (app_id, external_id, user_id, provider, platform, device_token)
    select 1, 'phone-' || n, 'person-' || n, 'apns', 'ios', lpad(to_hex(n), 64, '0') from generate_series(1, 20) n
  `.execute(bench.api.database.db);
  await openLanesOfAllApps(bench.api.database.db, 'apns', 1);
});
after(() => bench.close());

interface MessageView {
  id: string;
  deliveries: { outcome: string | null; in_doubt: boolean; attempts: number }[];
}

async function post(n: number, headers: Record<string, string> = {}): Promise<MessageView> {
  const body = { to: { user_id: `person-${n}` }, message: { title: 'Hello' } };
  const answer = await bench.api.request('POST', '/v1/messages', body, headers);
  assert.ok(answer.status === 200 || answer.status === 202, `${answer.status}`);
  return answer.body as MessageView;
}

async function outcomeOf({ id }: MessageView): Promise<MessageView['deliveries'][number]> {
  const answer = await bench.api.request('GET', `/v1/messages/${id}`);
  return (answer.body as MessageView).deliveries[0]!;
}

const lane = () => bench.temporal.client.workflow.getHandle(laneWorkflowId(bench.temporal.taskQueuePrefix, firstLane));
const firstLane = { appId: 1, provider: 'apns', number: 0 };

test('a message is sent by the worker that Temporal keeps at its lane, and a caller may wait for it', async () => {
  worker = await bench.startWorker();
  await bench.startLanes();
  const { deliveries } = await post(1, { prefer: 'wait=20' });
  assert.deepEqual(
    deliveries.map(({ outcome }) => outcome),
    ['accepted'],
  );
});

test('a worker that stops leaves nobody of its lane in doubt, and the next one sends on', async () => {
  const { apns } = bench.providers;
  const answers = gate();
  apns.answer = async () => {
    await answers.opened;
    return accepted;
  };
  const before = apns.calls.length;
  const first = await post(2);
  await until(() => apns.calls.length > before);
  const stopping = worker.stop();
  const second = await post(3);
  answers.open();
  await stopping;
  worker = await bench.startWorker();
  await until(async () => (await outcomeOf(second)).outcome === 'accepted');
  const { outcome, in_doubt, attempts } = await outcomeOf(first);
  assert.deepEqual({ outcome, in_doubt, attempts }, { outcome: 'accepted', in_doubt: false, attempts: 1 });
});

test('a lane whose workflow was terminated is found missing, and started again', async () => {
  const { db } = bench.api.database;
  await lane().terminate('test');
  const message = await post(4);
  await until(async () => {
    // As if nobody had seen it for a while.
    await sql`update lanes set seen_at = '-infinity'`.execute(db);
    await bench.startLanes();
    return (await outcomeOf(message)).outcome === 'accepted';
  });
  assert.equal((await lane().describe()).status.name, 'RUNNING');
});

test("Temporal's UI says what a lane does", async () => {
  await until(async () => {
    const [activity] = (await lane().describe()).raw.pendingActivities ?? [];
    const details = activity?.heartbeatDetails?.payloads?.[0]?.data;
    if (!details) return false;
    const status = JSON.parse(Buffer.from(details).toString()) as Record<string, unknown>;
    return activity?.activityType?.name === 'keepLane' && typeof status.perSecond === 'number' && status.waiting === 0;
  });
});

test('a lane that nothing comes to is left, and whatever comes at that moment or later is sent', async () => {
  await worker.stop();
  worker = await bench.startWorker({ laneIdleMs: 150 });
  await post(5, { prefer: 'wait=20' });
  await until(async () => (await lane().describe()).status.name === 'COMPLETED');
  // Around the moment in which the worker leaves and the workflow ends.
  for (let ms = 100; ms <= 220; ms += 20) {
    await new Promise((resolve) => setTimeout(resolve, ms));
    const [delivery] = (await post(6, { prefer: 'wait=20' })).deliveries;
    assert.deepEqual([ms, delivery?.outcome, delivery?.in_doubt], [ms, 'accepted', false]);
  }
});
