/** Webhooks from the launch of a send to a real receiver, through PostgreSQL, Temporal and workflows. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { runCollector, wakeWebhooks } from '../../activities/webhooks/collect-webhooks.ts';
import { deleteWebhook, feedTest, insertWebhook } from '../../db/webhooks.ts';
import { workerActor } from '../../domain/actor.ts';
import { webhookWorkflowId } from '../../domain/ids.ts';
import { notificationsTaskQueue } from '../../domain/task-queues.ts';
import { until } from '../support/until.ts';
import { startReceiver, type WebhookReceiver } from '../support/webhook-receiver.ts';
import { masterKeys } from '../webhooks/harness.ts';
import { createSendBench, type RunningWorker, type SendBench } from './harness.ts';
import { startWebhookWorker } from './webhook-worker.ts';

let bench: SendBench;
let worker: RunningWorker;
let receiver: WebhookReceiver;
let stopDelivering: (() => Promise<void>) | undefined;
const collecting = new AbortController();
let collected: Promise<void>;

before(async () => {
  bench = await createSendBench();
  worker = await bench.startWorker();
  receiver = await startReceiver();
  const taskQueue = notificationsTaskQueue(bench.temporal.taskQueuePrefix);
  collected = runCollector(worker.deps, bench.temporal.client, taskQueue, collecting.signal);
  stopDelivering = await startWebhookWorker(bench, worker.deps);
});
after(async () => {
  collecting.abort();
  await collected;
  await stopDelivering?.();
  await Promise.all([bench.close(), receiver.close()]);
});

async function add(types: string[]): Promise<string> {
  const settings = { url: receiver.url, types, filter: {} };
  return (await insertWebhook(bench.api.database.db, workerActor, 1, settings, masterKeys, 20))!.webhook.id;
}

const workflowOf = (id: string) => bench.temporal.client.workflow.getHandle(webhookWorkflowId(id));
const statusOf = async (id: string) => (await workflowOf(id).describe()).status.name;

test('every move of a send arrives in order, with its end, and then the workflow ends', async () => {
  const id = await add(['notification.state_changed', 'notification.finished']);
  const send = await bench.launch({ devices: 150 });
  await send.until('completed');
  await until(() => receiver.received.length >= 3);
  assert.deepEqual(
    receiver.received.map(({ body }) => [body.type, body.data.notification_id, body.data.to ?? body.data.state]),
    [
      ['notification.state_changed', send.id, 'sending'],
      ['notification.state_changed', send.id, 'completed'],
      ['notification.finished', send.id, 'completed'],
    ],
  );
  assert.deepEqual((receiver.received[2]!.body.data.outcomes as { accepted: number }).accepted, 150);
  await until(async () => (await statusOf(id)) === 'COMPLETED');
});

test('while a receiver is down the workflow waits and says so; a worker that stops meanwhile loses nothing', async () => {
  receiver.received.length = 0;
  receiver.answer = () => ({ status: 503, body: 'closed for today' });
  const id = await add(['webhook.disabled']);
  const { db, pool } = bench.api.database;
  await feedTest(db, 1, id);
  await until(() => receiver.received.length === 1);
  await stopDelivering?.();
  stopDelivering = await startWebhookWorker(bench, worker.deps);
  const metadata = async () => JSON.stringify(await workflowOf(id).query('__temporal_workflow_metadata'));
  await until(async () => /waits for the next try/.test(await metadata()));
  const text = await metadata();
  assert.match(text, /pending: 1.*failing since.*closed for today.*next try/);
  receiver.answer = () => ({ status: 204 });
  await pool.query(`update webhook_deliveries set next_at = now() where webhook_id = $1`, [id]);
  await workflowOf(id).signal('wakeSignal');
  await until(async () => (await statusOf(id)) === 'COMPLETED');
  assert.equal(receiver.received.length, 2);
});

test('a workflow that is lost is started again for what is due', async () => {
  receiver.received.length = 0;
  receiver.answer = () => ({ status: 500 });
  const id = await add(['webhook.disabled']);
  const { db, pool } = bench.api.database;
  await feedTest(db, 1, id);
  await until(() => receiver.received.length === 1);
  await workflowOf(id).terminate();
  receiver.answer = () => ({ status: 204 });
  await pool.query(`update webhook_deliveries set next_at = now() - interval '3 seconds' where webhook_id = $1`, [id]);
  await pool.query(`update webhooks set busy_until = now() where id = $1`, [id]);
  await wakeWebhooks(worker.deps, bench.temporal.client, notificationsTaskQueue(bench.temporal.taskQueuePrefix));
  await until(() => receiver.received.length === 2);
});

test('one that is deleted while its workflow waits ends it', async () => {
  receiver.received.length = 0;
  receiver.answer = () => ({ status: 500 });
  const id = await add(['webhook.disabled']);
  const { db } = bench.api.database;
  await feedTest(db, 1, id);
  await until(() => receiver.received.length === 1);
  await db.transaction().execute((trx) => deleteWebhook(trx, workerActor, 1, id));
  await until(async () => (await statusOf(id)) === 'COMPLETED');
});
