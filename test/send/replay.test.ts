/**
 * The workflows, run again on recorded histories: a change that takes another course on an old history would hang every send
 * under way when it is deployed.
 *
 * Some are kept in `histories/`. After a change that cannot be compatible (or that needs none to be, because no send is under way)
 * those that begin with `looks`, `lane`, `books` or `webhook` are made anew: `RECORD_HISTORIES=1 npm test -- test/send/replay`, then
 * `biome check --write test/send`. The others are of `sendNotificationWorkflow`, which nothing starts any more.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import proto from '@temporalio/proto';
import { Worker } from '@temporalio/worker';
import { sql } from 'kysely';
import { createBookStore } from '../../activities/book-store.ts';
import { SearchAttributes } from '../../activities/search-attributes.ts';
import { wakeWebhooks } from '../../activities/webhooks/collect-webhooks.ts';
import { collectFeedOfAllApps } from '../../db/webhook-feed.ts';
import { feedTest, insertWebhook } from '../../db/webhooks.ts';
import { workerActor } from '../../domain/actor.ts';
import { bookExportStart } from '../../domain/book-export.ts';
import { exportBooksWorkflowType, laneWorkflowId, wakeSignalName, webhookWorkflowId } from '../../domain/ids.ts';
import { notificationsTaskQueue } from '../../domain/task-queues.ts';
import { accepted, gate } from '../delivery/harness.ts';
import { startScriptedStore } from '../support/object-store.ts';
import { until } from '../support/until.ts';
import { startReceiver } from '../support/webhook-receiver.ts';
import { masterKeys } from '../webhooks/harness.ts';
import { createSendBench, type RunningWorker, type SendBench, type TestSend, workflowBundle } from './harness.ts';
import { startWebhookWorker } from './webhook-worker.ts';

const { History } = proto.temporal.api.history.v1;
type History = proto.temporal.api.history.v1.IHistory;

const histories = path.join(import.meta.dirname, 'histories');
/** Of sends that were launched before a look could send. */
const beforeLooks = ['paused-and-deferred', 'cancelled-in-temporal'];
const isRecording = process.env.RECORD_HISTORIES === '1';

let bench: SendBench;
let worker: RunningWorker;
before(async () => {
  bench = await createSendBench();
  worker = await startWorker();
});
after(() => bench.close());

const startWorker = (options: Parameters<SendBench['startWorker']>[0] = {}) =>
  bench.startWorker({ batchSize: 20, batchesPerRun: 4, openBatches: 3, ...options });

/** Every run of the notification's workflow and of its batches. */
async function historiesOf(send: TestSend): Promise<{ workflowId: string; history: History }[]> {
  const { workflow } = bench.temporal.client;
  const found = [];
  for (const workflowId of [
    send.handle.workflowId,
    ...[1, 2, 3].map((seq) => `${send.handle.workflowId}/batch-${seq}`),
  ]) {
    let runId: string | undefined;
    do {
      const history = await workflow.getHandle(workflowId, runId).fetchHistory();
      found.push({ workflowId, history });
      const started = history.events?.[0]?.workflowExecutionStartedEventAttributes;
      runId = started?.continuedExecutionRunId || undefined;
    } while (runId);
  }
  return found;
}

async function replay(workflowId: string, history: History): Promise<void> {
  await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, workflowId);
}

async function replayAll(send: TestSend): Promise<void> {
  const found = await historiesOf(send);
  assert.ok(found.length >= 2);
  for (const { workflowId, history } of found) await replay(workflowId, history);
}

/** As JSON that a person can read, free of the machine's name. */
function record(name: string, history: History): void {
  const object = History.toObject(History.fromObject(history), { enums: String, longs: Number, bytes: String });
  const text = JSON.stringify(object, null, 2).replaceAll(os.hostname(), 'host');
  writeFileSync(path.join(histories, `${name}.json`), `${text}\n`);
}

function readRecorded(name: string): History {
  return History.fromObject(JSON.parse(readFileSync(path.join(histories, `${name}.json`), 'utf8')));
}

describe('the history of', () => {
  test('a plain send that continues as new', async () => {
    const send = await bench.launch({ devices: 100 });
    await send.until('completed');
    await send.handle.result();
    await replayAll(send);
  });

  test('a send with refused devices, paused and resumed', async () => {
    const answers = gate();
    bench.providers.apns.answer = async ({ number, call }) => {
      if (number % 3 === 0) await answers.opened;
      return call === 1 && number % 5 === 0
        ? { kind: 'later', httpStatus: 503, reason: 'Shutdown', scope: 'device', afterMs: 1_100 }
        : accepted;
    };
    const send = await bench.launch({ devices: 60 });
    await send.untilDone(2);
    await send.call('pause');
    answers.open();
    await until(() => bench.providers.apns.open === 0);
    await send.call('resume');
    await send.until('completed');
    await send.handle.result();
    await replayAll(send);
    if (isRecording) record('looks-paused-and-deferred', (await historiesOf(send))[0]!.history);
  });

  test('a send that is cancelled in mid-batch', async () => {
    const answers = gate();
    bench.providers.apns.answer = async ({ number }) => {
      if (number % 4 === 0) await answers.opened;
      return accepted;
    };
    const send = await bench.launch({ devices: 60 });
    await send.untilDone(2);
    await send.call('cancel');
    answers.open();
    await send.until('cancelled');
    await send.handle.result();
    await replayAll(send);
  });

  test('a send that is cancelled in Temporal', async () => {
    const answers = gate();
    bench.providers.apns.answer = async ({ number }) => {
      if (number % 4 === 0) await answers.opened;
      return accepted;
    };
    const send = await bench.launch({ devices: 60 });
    await send.untilDone(2);
    await send.handle.cancel();
    answers.open();
    await send.until('cancelled');
    await until(async () => (await send.handle.describe()).status.name === 'CANCELLED');
    await replayAll(send);
    if (isRecording) record('looks-cancelled-in-temporal', (await historiesOf(send))[0]!.history);
  });

  test('a lane that one worker has left and another has taken', async () => {
    const { temporal } = bench;
    await sql`
      insert into devices (app_id, external_id, provider, platform, device_token)
      values (1, 'a phone', 'apns', 'ios', ${'ab'.repeat(32)})
    `.execute(bench.api.database.db);
    await bench.api.request('POST', '/v1/messages', { to: { external_id: 'a phone' }, message: { title: 'Hello' } });
    const lane = temporal.client.workflow.getHandle(
      laneWorkflowId(temporal.taskQueuePrefix, { appId: 1, provider: 'apns', number: 0 }),
    );
    const times = async (event: 'activityTaskStartedEventAttributes' | 'activityTaskCompletedEventAttributes') =>
      (await lane.fetchHistory()).events!.filter((one) => one[event]).length;
    const isHeld = async () => (await lane.describe()).raw.pendingActivities?.[0]?.lastStartedTime != null;
    await until(() => isHeld().catch(() => false));
    await worker.stop();
    worker = await startWorker();
    await until(async () => (await times('activityTaskCompletedEventAttributes')) === 1);
    await until(isHeld);
    const history = await lane.fetchHistory();
    await replay(lane.workflowId, history);
    if (isRecording) record('lane-handed-over', history);
  });

  test('an upload of books', async () => {
    Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'books', AWS_SECRET_ACCESS_KEY: 'secret' });
    const store = await startScriptedStore();
    const { endpoint } = store;
    const place = { bucket: 'books', endpoint, region: 'us-east-1', prefix: '', isPathStyle: true, since: undefined };
    await worker.stop();
    worker = await startWorker({ bookStore: createBookStore(place) });
    try {
      const send = await bench.launch({ devices: 5 });
      await send.until('completed');
      const { client, taskQueuePrefix } = bench.temporal;
      const start = bookExportStart(send.id, notificationsTaskQueue(taskQueuePrefix));
      const upload = await client.workflow.start(exportBooksWorkflowType, start);
      assert.equal((await upload.result()).lines, 5);
      const history = await upload.fetchHistory();
      await replay(upload.workflowId, history);
      if (isRecording) record('books-uploaded', history);
    } finally {
      await store.close();
    }
  });

  test('a send that is halted and resumed while Temporal has its search attributes', async () => {
    const nothing = () => {};
    const log = { debug: nothing, info: nothing, warn: nothing, error: nothing };
    const search = new SearchAttributes(bench.temporal.client, log);
    await search.register(new AbortController().signal);
    await worker.stop();
    worker = await startWorker({ search });
    const send = await bench.launch({ devices: 50, isLaunched: false });
    bench.providers.apns.answer = () => ({
      ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken' },
      ...{ fault: 'credentials', detail: 'Refused.' },
    });
    await send.call('launch');
    await send.until('halted');
    bench.providers.apns.answer = () => accepted;
    await send.call('resume');
    await send.until('completed');
    await send.handle.result();
    const { history } = (await historiesOf(send))[0]!;
    assert.ok(history.events!.some((event) => event.upsertWorkflowSearchAttributesEventAttributes));
    await replayAll(send);
    if (isRecording) record('looks-searchable', history);
    await worker.stop();
    worker = await startWorker();
  });

  test('a webhook whose receiver is down at first', async () => {
    const { db } = bench.api.database;
    const { client, taskQueuePrefix } = bench.temporal;
    const receiver = await startReceiver();
    const stop = await startWebhookWorker(bench, worker.deps);
    try {
      receiver.answer = () => ({ status: receiver.received.length === 1 ? 500 : 204 });
      const settings = { url: receiver.url, types: ['webhook.disabled'], filter: {} };
      const { webhook } = (await insertWebhook(db, workerActor, 1, settings, masterKeys, 20))!;
      await feedTest(db, 1, webhook.id);
      await collectFeedOfAllApps(db);
      await wakeWebhooks(worker.deps, client, notificationsTaskQueue(taskQueuePrefix), [webhook.id]);
      const handle = client.workflow.getHandle(webhookWorkflowId(webhook.id));
      const waits = async () =>
        (await handle.fetchHistory()).events!.some((event) => event.timerStartedEventAttributes);
      await until(waits);
      await sql`update webhook_deliveries set next_at = now()`.execute(db);
      await handle.signal(wakeSignalName);
      await handle.result();
      assert.equal(receiver.received.length, 2);
      const history = await handle.fetchHistory();
      await replay(handle.workflowId, history);
      if (isRecording) record('webhook-waited', history);
    } finally {
      await stop();
      await receiver.close();
    }
  });
});

for (const name of [
  ...beforeLooks,
  'looks-paused-and-deferred',
  'looks-cancelled-in-temporal',
  'looks-searchable',
  'lane-handed-over',
  'books-uploaded',
  'webhook-waited',
]) {
  test(`histories/${name}.json still takes the course that it took`, { skip: isRecording }, async () => {
    await replay('notification-recorded', readRecorded(name));
  });
}

test('a history that took another course is found', { skip: isRecording }, async () => {
  const history = readRecorded('paused-and-deferred');
  const first = history.events!.find((event) => event.activityTaskScheduledEventAttributes);
  first!.activityTaskScheduledEventAttributes!.activityType!.name = 'closeBooks';
  await assert.rejects(replay('notification-recorded', history), /nondeterminism/i);
});
