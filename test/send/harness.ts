/** Whole sends: the real API, PostgreSQL, Temporal and workflows, workers in this process, providers that answer as the test says. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode, DefaultLogger, Runtime, Worker, type WorkflowBundle } from '@temporalio/worker';
import { sql } from 'kysely';
import { type ActivityDeps, createActivities } from '../../activities/activities.ts';
import { OverloadWatch } from '../../activities/delivery/overload-watch.ts';
import { ProviderHosts } from '../../activities/delivery/provider-hosts.ts';
import { LaneBell } from '../../activities/lane-bell.ts';
import { reconcile } from '../../activities/reconcile.ts';
import { SendingSlots, tunedBy } from '../../activities/sending-slots.ts';
import { laneWaker, startMissingLanes } from '../../activities/start-lanes.ts';
import { createTemporalWaker } from '../../api/notifications/temporal-waker.ts';
import { auditBooks } from '../../db/audit.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { getSummaryOfAnyApp } from '../../db/notifications.ts';
import { loadConfig, type WorkerConfig } from '../../domain/config.ts';
import { byProvider, type ProviderName } from '../../domain/device.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import type { Message } from '../../domain/message.ts';
import type { NotificationSummary } from '../../domain/notification.ts';
import type { InDoubtPolicy, NotificationState } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import {
  deliveryTaskQueue,
  exportsTaskQueue,
  laneTaskQueue,
  notificationsTaskQueue,
} from '../../domain/task-queues.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { traceActivities } from '../../telemetry/temporal-traces.ts';
import { createTestApi, type TestApi } from '../api/harness.ts';
import { createScriptedProvider, type ScriptedProvider, sourceOf } from '../delivery/harness.ts';
import { connectTestTemporal, type TestTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';

export interface SendOptions {
  devices?: number;
  /** Of all devices; default APNs. */
  provider?: ProviderName | 'both in turn';
  message?: Message;
  inDoubtPolicy?: InDoubtPolicy;
  ratePerSecond?: number | null;
  /** Default: launched at once, through the API. */
  scheduledAt?: Date;
  /** Default true; false: a draft. */
  isLaunched?: boolean;
  /** Launched in PostgreSQL alone, as by an API that could not reach Temporal. */
  isTemporalAway?: boolean;
}

export interface TestSend {
  id: string;
  deviceIds: number[];
  handle: ReturnType<TestTemporal['client']['workflow']['getHandle']>;
  read(): Promise<NotificationSummary>;
  /** POST /v1/notifications/{id}/{verb}; the answer's status. */
  call(verb: 'launch' | 'unschedule' | 'pause' | 'resume' | 'cancel', body?: object): Promise<number>;
  /** Waits for the state, and in a final one for closed books. */
  until(state: NotificationState): Promise<NotificationSummary>;
  /** Waits until so many devices have their outcome. */
  untilDone(devices: number): Promise<void>;
  /** The invariant, from the rows; and the outcomes, where given. */
  checkBooks(expected?: Partial<Record<Outcome, number>>): Promise<void>;
}

export interface RunningWorker {
  deps: ActivityDeps;
  /** As by SIGTERM. */
  stop(): Promise<void>;
}

type WorkerOptions = Partial<WorkerConfig> & Pick<ActivityDeps, 'laneIdleMs' | 'search' | 'tracing' | 'bookStore'>;

export interface SendBench {
  api: TestApi;
  temporal: TestTemporal;
  providers: Record<ProviderName, ScriptedProvider>;
  /** What workers logged as a warning or an error. */
  logged: Record<string, unknown>[];
  launch(options?: SendOptions): Promise<TestSend>;
  startWorker(options?: WorkerOptions): Promise<RunningWorker>;
  /** One round of the reconciler, as if every change were older than its grace. */
  reconcile(): Promise<void>;
  /** As a worker does when it starts, and every few seconds. */
  startLanes(): Promise<void>;
  /** Stops every worker. */
  close(): Promise<void>;
}

let bundle: Promise<WorkflowBundle> | undefined;

const workflowFile = (name: string) => fileURLToPath(new URL(`../../workflows/${name}`, import.meta.url));

/** Once per test file. */
export function workflowBundle(): Promise<WorkflowBundle> {
  bundle ??= bundleWorkflowCode({
    workflowsPath: workflowFile('index.ts'),
    workflowInterceptorModules: [workflowFile('trace-header.ts')],
    logger: new DefaultLogger('ERROR'),
  });
  return bundle;
}

Runtime.install({
  logger: new DefaultLogger('ERROR', () => {}),
  shutdownSignals: [],
  telemetryOptions: { logging: { forward: {}, filter: { core: 'ERROR', other: 'ERROR' } } },
});

const quick: Partial<WorkerConfig> = {
  ...{ batchSize: 100, retryBaseMs: 1, retryMaxMs: 3_600_000, heartbeatTimeoutMs: 5_000, shutdownGraceMs: 2_000 },
  // The sends of tests are small, and most tests are about the workflows of larger ones.
  ...{ concurrentBatches: 4, openBatches: 4, smallAudience: 0 },
};

export async function createSendBench({ tracing }: Pick<ActivityDeps, 'tracing'> = {}): Promise<SendBench> {
  const temporal = await connectTestTemporal();
  const logged: Record<string, unknown>[] = [];
  const nothing = () => {};
  const note = (fields: object, message: string) => void logged.push({ ...fields, message });
  const log = { debug: nothing, info: nothing, warn: note, error: note };
  const waker = createTemporalWaker({
    ...{
      env: { TEMPORAL_ADDRESS: temporal.address },
      taskQueuePrefix: temporal.taskQueuePrefix,
      deadlineMs: 10_000,
      log,
      tracing,
    },
  });
  const api = await createTestApi({ waker, tracing });
  const { db, pool } = api.database;
  const providers = byProvider((name) => createScriptedProvider(undefined, name));
  const workers: RunningWorker[] = [];

  async function launch(options: SendOptions = {}): Promise<TestSend> {
    const { devices = 50, provider = 'apns', message = { title: 'Hello' } } = options;
    const id = uuidV7();
    const { rows } = await sql<{ id: number }>`
      insert into devices (app_id, external_id, provider, platform, device_token)
      select 1, ${id} || '-' || n, p.provider, case p.provider when 'apns' then 'ios' else 'android' end,
        encode(sha256((${id} || n)::bytea), 'hex')
      from generate_series(1, ${devices}::integer) n
      cross join lateral (
        select case when ${provider} = 'both in turn' then (array['apns', 'fcm'])[1 + n % 2] else ${provider} end as provider
      ) p
      order by n
      returning id
    `.execute(db);
    await insertNotification(db, {
      ...{ id, appId: 1, title: message.title ?? null, message },
      // Never an empty list, which no caller could ask for.
      audience: { externalIds: [id, ...rows.map((_, n) => `${id}-${n + 1}`)] },
      inDoubtPolicy: options.inDoubtPolicy ?? 'redeliver',
      ratePerSecond: options.ratePerSecond ?? null,
    });
    const read = () => getSummaryOfAnyApp(db, id);
    const call: TestSend['call'] = async (verb, body) =>
      (await api.request('POST', `/v1/notifications/${id}/${verb}`, body)).status;
    if (options.isTemporalAway) await launchNotification(db, 1, id);
    else if (options.isLaunched ?? true) {
      const body = options.scheduledAt && { scheduled_at: options.scheduledAt.toISOString() };
      assert.equal(await call('launch', body), 202);
    }
    return {
      ...{ id, read, call },
      deviceIds: rows.map((row) => row.id),
      handle: temporal.client.workflow.getHandle(notificationWorkflowId(id)),
      async until(state) {
        const isFinal = state === 'completed' || state === 'cancelled';
        let last: NotificationSummary | undefined;
        await until(async () => {
          last = await read();
          return last.state === state && (!isFinal || last.finishedAt !== null);
        }, `notification to be ${state}`);
        return last!;
      },
      untilDone: (wanted) =>
        until(async () => {
          const { books } = await read();
          return books.audience - books.pending >= wanted;
        }, `${wanted} outcomes`),
      async checkBooks(expected) {
        assert.deepEqual(await auditBooks(db, id), []);
        const { rows: counted } = await sql<{ outcome: Outcome; devices: number }>`
          select outcome, count(*) as devices from deliveries where notification_id = ${id} group by outcome
        `.execute(db);
        const counts = Object.fromEntries(counted.map((row) => [row.outcome, row.devices]));
        if (expected) assert.deepEqual(counts, expected);
        const { books, totals, finishedAt } = await read();
        const sum = Object.values(books.outcomes).reduce((a, b) => a + b, 0);
        assert.equal(books.audience, sum + books.pending);
        if (finishedAt) {
          assert.equal(books.pending, 0);
          // What was never planned is cancelled without a row.
          assert.equal(books.audience, books.isPlanned ? devices : 0);
          if (books.isPlanned) assert.deepEqual(totals?.outcomes, books.outcomes);
        }
      },
    };
  }

  async function startWorker({
    laneIdleMs,
    tracing,
    search,
    bookStore,
    ...settings
  }: WorkerOptions = {}): Promise<RunningWorker> {
    const config = { ...loadConfig({ DATABASE_URL: api.database.url }).worker, ...quick, ...settings };
    const deps: ActivityDeps = {
      ...{ db, pool, overload: new OverloadWatch(), providerHosts: new ProviderHosts(log), config, log },
      providers: sourceOf(providers),
      ...(laneIdleMs !== undefined && { laneIdleMs }),
      tracing,
      bookStore,
      ...(search !== undefined && { search }),
      slots: new SendingSlots(config.concurrentBatches),
      bell: new LaneBell((laneId) => wakeLane(laneId)),
    };
    const wakeLane = laneWaker(deps, temporal.client, notificationsTaskQueue(temporal.taskQueuePrefix));
    const common = {
      connection: await temporal.openNativeConnection(),
      namespace: temporal.namespace,
      activities: createActivities(deps),
      ...(tracing && { interceptors: { activity: [traceActivities(tracing, 'keepLane')] } }),
      maxHeartbeatThrottleInterval: 200,
      shutdownGraceTime: 0,
      // After a worker has stopped, its workflows wait so long for it before another one takes them.
      stickyQueueScheduleToStartTimeout: '500ms',
    };
    const prefix = temporal.taskQueuePrefix;
    const running = await Promise.all([
      Worker.create({
        ...common,
        taskQueue: notificationsTaskQueue(prefix),
        workflowBundle: await workflowBundle(),
        maxCachedWorkflows: config.maxCachedWorkflows,
      }),
      ...(['apns', 'fcm'] as const).flatMap((provider) =>
        [false, true].map((isUrgent) => {
          const slots = new SendingSlots(config.concurrentBatches);
          return Worker.create({
            ...{ ...common, ...tunedBy(slots), activities: createActivities({ ...deps, slots }) },
            taskQueue: deliveryTaskQueue(prefix, provider, isUrgent),
          });
        }),
      ),
      ...(['apns', 'fcm'] as const).map((provider) =>
        Worker.create({ ...common, taskQueue: laneTaskQueue(prefix, provider) }),
      ),
      ...(bookStore ? [Worker.create({ ...common, taskQueue: exportsTaskQueue(prefix) })] : []),
    ]);
    const listening = new AbortController();
    const listened = deps.bell.listen(pool, log, listening.signal);
    const ended = Promise.all(running.map((worker) => worker.run()));
    let stopped: Promise<unknown> | undefined;
    const worker: RunningWorker = {
      deps,
      async stop() {
        if (!stopped) {
          for (const part of running) part.shutdown();
          listening.abort();
          stopped = Promise.all([ended, listened]);
        }
        await stopped;
      },
    };
    workers.push(worker);
    return worker;
  }

  return {
    ...{ api, temporal, providers, logged, launch, startWorker },
    async reconcile() {
      await pool.query(`update notifications set updated_at = updated_at - interval '1 hour'`);
      const deps = { db, pool, log } as unknown as ActivityDeps;
      const taskQueue = notificationsTaskQueue(temporal.taskQueuePrefix);
      await reconcile(deps, temporal.client, taskQueue, new AbortController().signal);
    },
    async startLanes() {
      const deps = { db, pool, log } as unknown as ActivityDeps;
      await startMissingLanes(deps, temporal.client, notificationsTaskQueue(temporal.taskQueuePrefix));
    },
    async close() {
      await Promise.all(workers.map((worker) => worker.stop()));
      await waker.close();
      await temporal.close();
      await api.close();
    },
  };
}

/** Calls beyond the first of each device: nobody may be sent to twice without a mark. */
export function repeatedCalls(provider: ScriptedProvider, deviceIds: number[]): number {
  const wanted = new Set(deviceIds);
  const calls = provider.calls.filter((call) => wanted.has(call.deviceId));
  return calls.length - new Set(calls.map((call) => call.deviceId)).size;
}
