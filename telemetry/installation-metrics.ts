import type { Logger } from '../domain/logger.ts';
import { within } from '../domain/within.ts';
import { gauge } from './metrics.ts';

/** What is told of the books of all apps. */
export interface Installation {
  notifications: { state: string; haltReason: string | null; count: number }[];
  batches: { provider: string; open: number; pendingDevices: number }[];
  deferrals: { due: number; later: number };
  lanes: { app: string; provider: string; pending: number; lagSeconds: number; halted: number }[];
  hosts: { app: string; provider: string; blocked: number; unreachable: number }[];
  credentials: { app: string; kind: string; secondsLeft: number }[];
  rates: { app: string; provider: string; perSecond: number | null; secondsUntilFree: number }[];
  webhooks: { app: string; failing: number; disabled: number }[];
  webhookDeliveries: { pending: number; lagSeconds: number };
  exports: { waiting: number; oldestSeconds: number };
}

/** However often it is asked, PostgreSQL is not asked more often. */
const freshMs = 10_000;
/** A scrape waits no longer: what comes later is told to the next one. */
const usualPatienceMs = 2_000;

/**
 * Gauges of what is in the database: every process that tells them tells the same, so add them up over none: take `max`. While the database does not
 * answer they are left out, and `carillon_books_readable` is 0.
 * @param read must end by itself, within a few seconds; never called twice at once
 * @returns to be called before the gauges are told
 */
export function watchInstallation(
  read: () => Promise<Installation>,
  log: Logger,
  { now = () => performance.now(), patienceMs = usualPatienceMs }: { now?: () => number; patienceMs?: number } = {},
): () => Promise<void> {
  const notifications = gauge({
    name: 'carillon_notifications',
    help: 'Notifications that are launched or scheduled and whose books are open, by state.',
    labels: ['state'],
  });
  const halted = gauge({
    name: 'carillon_notifications_halted',
    help: 'Notifications that halted themselves and wait for somebody, by reason.',
    labels: ['reason'],
  });
  const batches = gauge({
    name: 'carillon_batches_open',
    help: 'Batches with devices that have no outcome.',
    labels: ['provider'],
  });
  const devices = gauge({
    name: 'carillon_devices_pending',
    help: 'Devices in open batches that have no outcome.',
    labels: ['provider'],
  });
  const deferred = gauge({
    name: 'carillon_devices_deferred',
    help: 'Devices of notifications that were refused for now: due, or to be tried later.',
    labels: ['when'],
  });
  const pending = gauge({
    name: 'carillon_lane_pending',
    help: 'Devices of messages to one person that have no outcome.',
    labels: ['app', 'provider'],
  });
  const lag = gauge({
    name: 'carillon_lane_lag_seconds',
    help: 'How long the oldest of them that is due has waited.',
    labels: ['app', 'provider'],
  });
  const haltedLanes = gauge({
    name: 'carillon_lanes_halted',
    help: 'Lanes that halted themselves: their messages wait.',
    labels: ['app', 'provider'],
  });
  const hosts = gauge({
    name: 'carillon_provider_hosts',
    help: 'Hosts of the provider that are held back after refusals, or that workers cannot reach.',
    labels: ['app', 'provider', 'state'],
  });
  const credentials = gauge({
    name: 'carillon_credential_expires_seconds',
    help: 'Until the credential in use expires, where it does; below 0: it has.',
    labels: ['app', 'kind'],
  });
  const rates = gauge({
    name: 'carillon_rate_limit_devices_per_second',
    help: 'The rate that an app is limited to.',
    labels: ['app', 'provider'],
  });
  const quota = gauge({
    name: 'carillon_rate_limit_wait_seconds',
    help: 'Until there is quota again; 0: there is some.',
    labels: ['app', 'provider'],
  });
  const webhooks = gauge({
    name: 'carillon_webhooks',
    help: 'Webhooks that are not well: failing ones are tried on, disabled ones wait for somebody.',
    labels: ['app', 'state'],
  });
  const webhookPending = gauge({
    name: 'carillon_webhook_deliveries_pending',
    help: 'Deliveries to webhooks that were not taken yet.',
  });
  const webhookLag = gauge({
    name: 'carillon_webhook_lag_seconds',
    help: 'How long the oldest of them has been due; some that wait behind another of their subject are.',
  });
  const unexported = gauge({
    name: 'carillon_books_unexported',
    help: 'Sends that ended and whose books were not uploaded yet; 0 where no bucket is set.',
  });
  const unexportedSeconds = gauge({
    name: 'carillon_books_unexported_seconds',
    help: 'How long the first of them has waited for its upload.',
  });
  const readable = gauge({
    name: 'carillon_books_readable',
    help: 'Whether these gauges could be read from the database when last tried.',
  });
  const all: { reset(): void }[] = [
    ...[notifications, halted, batches, devices, deferred, pending, lag, haltedLanes],
    ...[hosts, credentials, rates, quota, webhooks],
  ];
  const single = [webhookPending, webhookLag, unexported, unexportedSeconds];

  function tell(state: Installation): void {
    for (const one of all) one.reset();
    for (const { state: name, haltReason, count } of state.notifications) {
      notifications.inc({ state: name }, count);
      if (haltReason !== null) halted.inc({ reason: haltReason }, count);
    }
    for (const { provider, open, pendingDevices } of state.batches) {
      batches.set({ provider }, open);
      devices.set({ provider }, pendingDevices);
    }
    for (const [when, count] of Object.entries(state.deferrals)) deferred.set({ when }, count);
    for (const { app, provider, ...lane } of state.lanes) {
      pending.set({ app, provider }, lane.pending);
      lag.set({ app, provider }, lane.lagSeconds);
      if (lane.halted > 0) haltedLanes.set({ app, provider }, lane.halted);
    }
    for (const { app, provider, ...states } of state.hosts) {
      for (const [name, count] of Object.entries(states)) hosts.set({ app, provider, state: name }, count);
    }
    for (const { app, kind, secondsLeft } of state.credentials) credentials.set({ app, kind }, secondsLeft);
    for (const { app, provider, perSecond, secondsUntilFree } of state.rates) {
      if (perSecond !== null) rates.set({ app, provider }, perSecond);
      quota.set({ app, provider }, secondsUntilFree);
    }
    for (const { app, ...states } of state.webhooks) {
      for (const [name, count] of Object.entries(states)) webhooks.set({ app, state: name }, count);
    }
    webhookPending.set(state.webhookDeliveries.pending);
    webhookLag.set(state.webhookDeliveries.lagSeconds);
    unexported.set(state.exports.waiting);
    unexportedSeconds.set(state.exports.oldestSeconds);
    readable.set(1);
  }

  let underWay: Promise<void> | undefined;
  let readAt = Number.NEGATIVE_INFINITY;
  let isFailing = false;

  async function refresh(): Promise<void> {
    try {
      tell(await read());
      isFailing = false;
    } catch (err) {
      forget();
      if (!isFailing) log.warn({ err }, 'the state of the books cannot be read for the metrics');
      isFailing = true;
    }
  }

  function forget(): void {
    for (const one of all) one.reset();
    for (const one of single) one.remove();
    readable.set(0);
  }

  return async () => {
    if (underWay === undefined && now() - readAt >= freshMs) {
      readAt = now();
      underWay = refresh().finally(() => {
        underWay = undefined;
      });
    }
    if (underWay === undefined) return;
    const isLate =
      (await within(
        underWay.then(() => true),
        patienceMs,
      )) === undefined;
    if (isLate) forget();
  };
}
