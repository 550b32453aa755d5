import { fileURLToPath } from 'node:url';
import { Client } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkerOptions } from '@temporalio/worker';
import { pino } from 'pino';
import { dropAuditMonths } from '../db/audit-entries.ts';
import { connect } from '../db/connect.ts';
import { listExpiringCredentialsOfAllApps } from '../db/credentials.ts';
import { createDeliveryPartitions } from '../db/delivery-partitions.ts';
import { dropEventMonths } from '../db/event-counts.ts';
import { openLanesOfAllApps } from '../db/lanes.ts';
import { createMasterKeys } from '../db/master-keys.ts';
import { dropMessageWeeks } from '../db/message-partitions.ts';
import { createProviderTokenStore, forgetOldProviderTokensOfAllApps } from '../db/provider-tokens.ts';
import { forgetOldEvidenceOfAllApps } from '../db/token-evidence.ts';
import { dropWebhookWeeks } from '../db/webhook-feed.ts';
import type { Config } from '../domain/config.ts';
import { expiryWarningDays } from '../domain/credential.ts';
import { byProvider, providerNames } from '../domain/device.ts';
import type { Logger } from '../domain/logger.ts';
import { pause } from '../domain/pause.ts';
import { ProviderTraffic } from '../domain/provider-traffic.ts';
import {
  deliveryTaskQueue,
  exportsTaskQueue,
  laneTaskQueue,
  notificationsTaskQueue,
  webhookTaskQueue,
} from '../domain/task-queues.ts';
import { proveFiles, surroundingsOf } from '../providers/open.ts';
import { freeLoopbackAddress } from '../telemetry/temporal-metrics.ts';
import { traceActivities } from '../telemetry/temporal-traces.ts';
import { openTracing } from '../telemetry/tracing.ts';
import { type Activities, type ActivityDeps, createActivities } from './activities.ts';
import { AppProviders } from './app-providers.ts';
import { createBookStore } from './book-store.ts';
import { OverloadWatch } from './delivery/overload-watch.ts';
import { ProviderHosts } from './delivery/provider-hosts.ts';
import { LaneBell } from './lane-bell.ts';
import { runReconciler } from './reconcile.ts';
import { SearchAttributes } from './search-attributes.ts';
import { SendingSlots, tunedBy } from './sending-slots.ts';
import { serveMetrics } from './serve-metrics.ts';
import { runBookExports } from './start-book-exports.ts';
import { laneWaker } from './start-lanes.ts';
import { runCollector } from './webhooks/collect-webhooks.ts';
import { WebhookSender } from './webhooks/webhook-sender.ts';
import { loadWorkerSettings } from './worker-settings.ts';

/**
 * The worker: polls the task queues of its roles until it is asked to stop (SIGTERM, SIGINT), then records what is in flight
 * and ends. Prints one line when it is ready.
 */

/** Batches of small sends that one process sends at once, besides the campaigns' own slots. */
const urgentSlots = 4;
/** Each waits for a provider or for PostgreSQL nearly all the time; there are twice as many places for workflow tasks. */
const smallSendsAtOnce = 20;
/** Each waits for receivers nearly all the time, with eight requests at most. */
const webhooksAtOnce = 200;
/** No limit: a lane costs next to nothing while nothing is in it. */
const lanesAtOnce = 1_000;
/** Each fills a part in memory while another is under way. */
const uploadsAtOnce = 2;
/** On Temporal Cloud every heartbeat that reaches the server is billed; pause and cancel do not wait for one. */
const heartbeatThrottle = '2s';
/** Half an hour at a lane is no span. */
const endless = 'keepLane' satisfies keyof Activities;
const traceHeaderModule = fileURLToPath(new URL('../workflows/trace-header.ts', import.meta.url));
const dayMs = 24 * 60 * 60_000;

const { config, configured } = loadWorkerSettings(process.env);
const log = pino({ name: 'carillon-worker', level: config.logLevel });
const stopping = new AbortController();

const temporalMetricsAddress = config.metrics && (await freeLoopbackAddress());
installRuntime(log, temporalMetricsAddress);
const tracing = await openTracing(process.env, 'carillon-worker', log);
const { db, pool } = connect(config.databaseUrl, {
  maxConnections: Math.max(config.databaseMaxConnections, 4 + 6 * config.worker.concurrentBatches),
  applicationName: 'carillon-worker',
  onIdleError: (err) => log.warn({ err }, 'a database connection broke'),
});
const traffic = byProvider(() => new ProviderTraffic());
const surroundings = surroundingsOf(config, {
  ...{ logger: log, providerTokenStore: createProviderTokenStore(db), traffic },
});
await proveFiles(configured, surroundings);
const opening = { db, masterKeys: createMasterKeys(config.masterKeys), configured, surroundings, log };
const providers = new AppProviders(opening);
/** With connections of their own: on those of a campaign a fifth of a second's worth of requests is always queued. */
const laneProviders = new AppProviders(opening);
const webhooks = new WebhookSender({ masterKeys: opening.masterKeys, places: config.webhooks });
const deps: ActivityDeps = {
  ...{
    db,
    pool,
    providers,
    overload: new OverloadWatch(),
    providerHosts: new ProviderHosts(log),
    config: config.worker,
    log,
  },
  slots: new SendingSlots(config.worker.concurrentBatches),
  bell: new LaneBell((laneId) => wakeLane(laneId)),
  webhooks,
  tracing,
  bookStore: config.worker.bookExport && createBookStore(config.worker.bookExport),
};
const endMetrics =
  config.metrics && serveMetrics(config.metrics, { ...deps, pool, traffic, temporalAddress: temporalMetricsAddress! });
if (config.proxy !== undefined) {
  const { host, port } = config.proxy.proxy;
  log.info({ proxy: `${host}:${port}` }, 'providers are reached through a proxy');
}
const { connectionOptions, namespace = 'default' } = loadClientConnectConfig();
const connection = await connectPatiently(() => NativeConnection.connect(connectionOptions));
const client = new Client({ connection, namespace });
const search = new SearchAttributes(client, log);
deps.search = search;
const wakeLane = laneWaker(deps, client, notificationsTaskQueue(config.taskQueuePrefix));
const workers = await Promise.all(workerOptions(config, deps).map((options) => createPatiently(options)));
const background = startBackground();
log.info({ roles: config.worker.roles, namespace }, 'worker ready');
try {
  await Promise.all(workers.map((worker) => worker.run()));
} finally {
  stopping.abort();
  await Promise.allSettled(background);
  await Promise.all([providers.close(), laneProviders.close(), webhooks.close()]);
  await connection.close();
  endMetrics?.();
  await db.destroy();
  await tracing?.close();
  log.info({}, 'worker stopped');
}

function workerOptions({ worker, taskQueuePrefix }: Config, deps: ActivityDeps): WorkerOptions[] {
  const common = {
    connection,
    namespace,
    activities: createActivities(deps),
    ...(tracing && { interceptors: { activity: [traceActivities(tracing, endless)] } }),
    maxHeartbeatThrottleInterval: heartbeatThrottle,
    // What a dead worker had in its cache is waited for no longer than this; the default of 10 s held up lanes and sends.
    stickyQueueScheduleToStartTimeout: '2s',
    // Running activities are told at once: each has its own, bounded time to record what is in flight.
    shutdownGraceTime: 0,
    shutdownForceTime: worker.shutdownGraceMs + 10_000,
  } satisfies Partial<WorkerOptions>;
  return worker.roles.flatMap((role): WorkerOptions[] => {
    if (role === 'notifications') {
      return [
        {
          ...common,
          taskQueue: notificationsTaskQueue(taskQueuePrefix),
          maxCachedWorkflows: worker.maxCachedWorkflows,
          maxConcurrentActivityTaskExecutions: 20,
          maxConcurrentLocalActivityExecutions: smallSendsAtOnce,
          ...(worker.workflowBundlePath
            ? { workflowBundle: { codePath: worker.workflowBundlePath } }
            : {
                workflowsPath: fileURLToPath(new URL('../workflows/index.ts', import.meta.url)),
                interceptors: { ...common.interceptors, workflowModules: [traceHeaderModule] },
              }),
        },
        {
          ...common,
          taskQueue: webhookTaskQueue(taskQueuePrefix),
          maxConcurrentActivityTaskExecutions: webhooksAtOnce,
        },
        ...(deps.bookStore
          ? [
              {
                ...common,
                taskQueue: exportsTaskQueue(taskQueuePrefix),
                maxConcurrentActivityTaskExecutions: uploadsAtOnce,
              },
            ]
          : []),
      ];
    }
    if (role === 'lanes') {
      return providerNames.map((provider) => ({
        ...{ ...common, activities: createActivities({ ...deps, providers: laneProviders }) },
        taskQueue: laneTaskQueue(taskQueuePrefix, provider),
        maxConcurrentActivityTaskExecutions: lanesAtOnce,
      }));
    }
    return [false, true].map((isUrgent) => {
      const slots = new SendingSlots(isUrgent ? urgentSlots : worker.concurrentBatches);
      return {
        ...{ ...common, ...tunedBy(slots), activities: createActivities({ ...deps, slots }) },
        taskQueue: deliveryTaskQueue(taskQueuePrefix, role, isUrgent),
      };
    });
  });
}

function startBackground(): Promise<void>[] {
  const { roles } = config.worker;
  return [
    ...[providers, laneProviders].map((each) => each.watch(stopping.signal)),
    ...(roles.includes('lanes') ? [deps.bell.listen(pool, log, stopping.signal)] : []),
    ...(roles.includes('notifications')
      ? [lookAfterWorkflows(), collectWebhooks(), keepHouse(), uploadBooks(), search.register(stopping.signal)]
      : []),
  ];
}

async function lookAfterWorkflows(): Promise<void> {
  // Before the first round, which then starts them all.
  await openLanes();
  await runReconciler(deps, client, notificationsTaskQueue(config.taskQueuePrefix), stopping.signal);
}

async function uploadBooks(): Promise<void> {
  await runBookExports(deps, client, notificationsTaskQueue(config.taskQueuePrefix), stopping.signal);
}

function collectWebhooks(): Promise<void> {
  return runCollector(deps, client, notificationsTaskQueue(config.taskQueuePrefix), stopping.signal);
}

async function keepHouse(): Promise<void> {
  while (!stopping.signal.aborted) {
    await createDeliveryPartitions(db).catch((err: unknown) => log.error({ err }, 'partitions could not be made'));
    await openLanes();
    await forgetOldAudit().catch((err: unknown) => log.error({ err }, 'old months of the audit could not be dropped'));
    await forgetOldEvents().catch((err: unknown) => log.error({ err }, 'old months of events could not be dropped'));
    await forgetOldMessages().catch((err: unknown) => log.error({ err }, 'old messages could not be dropped'));
    await forgetOldWebhooks().catch((err: unknown) => log.error({ err }, 'old webhooks could not be dropped'));
    await warnOfExpiry().catch((err: unknown) => log.error({ err }, 'expiring certificates could not be looked for'));
    await forgetOldProviderTokensOfAllApps(db).catch((err: unknown) =>
      log.error({ err }, 'old provider tokens could not be deleted'),
    );
    await forgetOldEvidenceOfAllApps(db).catch((err: unknown) =>
      log.error({ err }, 'old evidence could not be deleted'),
    );
    await pause(dayMs, stopping.signal);
  }
}

async function openLanes(): Promise<void> {
  try {
    for (const provider of providerNames) await openLanesOfAllApps(db, provider, config.worker.lanes);
  } catch (err) {
    log.error({ err }, 'lanes could not be made');
  }
}

async function warnOfExpiry(): Promise<void> {
  for (const { id, appName, kind, fingerprint, expiresAt } of await listExpiringCredentialsOfAllApps(
    db,
    expiryWarningDays,
  )) {
    const names = { credential: id, app: appName, kind, fingerprint, expiresAt };
    log.warn(names, 'a credential expires soon: store another one');
  }
}

async function forgetOldAudit(): Promise<void> {
  if (config.worker.auditMonths === 0) return;
  const months = await dropAuditMonths(db, config.worker.auditMonths);
  if (months.length > 0) log.info({ months }, 'old months of the audit dropped');
}

async function forgetOldEvents(): Promise<void> {
  if (config.worker.eventMonths === 0) return;
  const months = await dropEventMonths(db, config.worker.eventMonths);
  if (months.length > 0) log.info({ months }, 'what devices told of sends of old months dropped');
}

async function forgetOldMessages(): Promise<void> {
  if (config.worker.messageDays === 0) return;
  const weeks = await dropMessageWeeks(db, config.worker.messageDays);
  if (weeks.length > 0) log.info({ weeks }, 'messages of old weeks dropped');
}

async function forgetOldWebhooks(): Promise<void> {
  if (config.worker.webhookDays === 0) return;
  // Attempts go on for half a week.
  const weeks = await dropWebhookWeeks(db, Math.max(config.worker.webhookDays, 7));
  if (weeks.length > 0) log.info({ weeks }, 'events for webhooks of old weeks dropped');
}

/** Both fail at once while Temporal or its namespace is away; a worker waits for them. */
async function connectPatiently<T>(open: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await open();
    } catch (err) {
      log.warn({ err }, 'Temporal cannot be reached, trying again');
      await pause(1_000, stopping.signal);
    }
  }
}

function createPatiently(options: WorkerOptions): Promise<Worker> {
  return connectPatiently(() => Worker.create(options));
}

/** @param metricsAddress where it is to serve what it counts itself */
function installRuntime(log: Logger, metricsAddress: string | undefined): void {
  const logger = new DefaultLogger('INFO', ({ level, message, meta }) => {
    const { error, taskToken: _token, ...rest } = (meta ?? {}) as Record<string, unknown>;
    const fields = { ...rest, ...(error !== undefined && { err: error }) };
    // Delivery queues have activities only, by design.
    if (message.startsWith('No workflows registered')) return;
    if (level === 'ERROR') log.error(fields, message);
    else if (level === 'WARN') log.warn(fields, message);
    else log.debug(fields, message);
  });
  Runtime.install({
    logger,
    telemetryOptions: {
      logging: { forward: {}, filter: { core: 'WARN', other: 'ERROR' } },
      ...(metricsAddress !== undefined && {
        metrics: {
          prometheus: {
            ...{
              bindAddress: metricsAddress,
              countersTotalSuffix: true,
              unitSuffix: true,
              useSecondsForDurations: true,
            },
          },
        },
      }),
    },
  });
}
