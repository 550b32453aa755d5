import { type BookExportSettings, readBookExport } from './book-export.ts';
import { type MasterKey, readMasterKeys } from './master-keys.ts';
import { type ProxySettings, parseProxy, parseProxyExceptions } from './proxy.ts';
import { type Environment, readSettings, type Settings } from './settings.ts';
import { type WorkerRole, workerRoles } from './task-queues.ts';
import { type Network, parseNetwork, type WebhookPlaces } from './webhook-address.ts';

/**
 * Every setting of Carillon but those of the providers, which are in their folders. Temporal's own (`TEMPORAL_ADDRESS`,
 * `TEMPORAL_NAMESPACE`, TLS, API key) are read by `@temporalio/envconfig`.
 */
export interface Config {
  /** `DATABASE_URL` */
  databaseUrl: string;
  /** `DATABASE_MAX_CONNECTIONS` of one process, default 10. */
  databaseMaxConnections: number;
  /** `CARILLON_TASK_QUEUE_PREFIX`, default empty: keeps installations in one namespace apart. */
  taskQueuePrefix: string;
  /** `LOG_LEVEL`: debug, info, warn, error; default info. */
  logLevel: string;
  /**
   * `HTTPS_PROXY` (`http://` or `https://`, with user and password where the proxy asks for them) and `NO_PROXY`: the way to
   * Apple and Google. A name in lower case goes before the same in capitals.
   */
  proxy: ProxySettings | undefined;
  /** `CARILLON_MASTER_KEYS`: seal the credentials in the database, the first of them; none: no credential can be stored. */
  masterKeys: MasterKey[];
  /**
   * `CARILLON_METRICS_PORT` and `CARILLON_METRICS_HOST` (default 127.0.0.1): where this process answers `GET /metrics`, 0: on any free
   * port, which it logs. Undefined: it does not.
   */
  metrics: MetricsAddress | undefined;
  /**
   * `CARILLON_WEBHOOK_ALLOWED_NETWORKS`: comma-separated, such as `10.0.0.0/8`: webhooks may go there too, also without TLS; default none:
   * to the public internet alone.
   */
  webhooks: WebhookPlaces;
  api: ApiConfig;
  worker: WorkerConfig;
}

export interface MetricsAddress {
  host: string;
  port: number;
}

export interface ApiConfig {
  /** `HOST`, default 127.0.0.1. */
  host: string;
  /** `PORT`, default 8080. */
  port: number;
  /** `CARILLON_TEMPORAL_DEADLINE_MS`: how long a call to Temporal may take before it is left to the reconciler; default 1 500. */
  temporalDeadlineMs: number;
  /**
   * `CARILLON_JWKS_URL`, `CARILLON_JWT_ISSUER`, `CARILLON_JWT_AUDIENCE`: JWTs of an outside issuer; unset: API keys only.
   * `CARILLON_JWT_SCOPE_CLAIM` (default `scope`) and `CARILLON_JWT_APP_CLAIM` (default `carillon_app`): the claims that say what
   * their callers may do, and for which app.
   */
  jwt: { jwksUrl: string; issuer: string; audience: string; scopeClaim: string; appClaim: string } | undefined;
  /** `CARILLON_TRUSTED_PROXIES`: how many proxies in front add to `X-Forwarded-For`, whose address the audit then tells; default 0. */
  trustedProxies: number;
  limits: {
    /** `CARILLON_KEY_REQUESTS_PER_SECOND`: of a key that has no limit of its own, in each process of the API; default 0: none. */
    keyRequestsPerSecond: number;
    /** `CARILLON_IMPORTS_PER_APP`: imports and uploads of audience lists at once, in each process of the API; default 4. */
    importsPerApp: number;
    /** `CARILLON_EXPORTS_PER_APP`: exports and progress streams at once, in each process of the API; default 20. */
    exportsPerApp: number;
  };
}

export interface WorkerConfig {
  /** `CARILLON_ROLES`: comma-separated; default all. */
  roles: WorkerRole[];
  /** `CARILLON_BATCH_SIZE`: devices a batch; unset: grows with the audience, see `db/plan.ts`. */
  batchSize: number | undefined;
  /** `CARILLON_WINDOW_SIZE`: devices that one reservation may cover at most, default 1 000. */
  windowSize: number;
  /** `CARILLON_MAX_IN_FLIGHT`: requests under way at once for one batch, default 2 000. */
  maxInFlight: number;
  /** `CARILLON_REQUEST_DEADLINE_MS`: a provider that has not answered after this leaves the device in doubt; default 15 000. */
  requestDeadlineMs: number;
  /** `CARILLON_CONCURRENT_BATCHES`: batches that one process sends at once for one provider, default 2. */
  concurrentBatches: number;
  /** `CARILLON_OPEN_BATCHES`: batch workflows that one notification keeps open at once, default 20. */
  openBatches: number;
  /** `CARILLON_BATCHES_PER_RUN`: batches after which the send continues as new; default 0: when Temporal suggests it. */
  batchesPerRun: number;
  /** `CARILLON_SMALL_AUDIENCE`: up to so many devices are sent to in one step, ahead of larger sends; default 1 000, 0: never. */
  smallAudience: number;
  /** `CARILLON_LANES`: lanes that messages to one app and provider are spread over, a power of two; default 1, never made fewer. */
  lanes: number;
  /** `CARILLON_MESSAGE_DAYS`: how long messages and their outcomes are kept at least, by weeks; default 30, 0: for ever. */
  messageDays: number;
  /** `CARILLON_AUDIT_MONTHS`: how long the audit is kept at least, by months; default 0: for ever. */
  auditMonths: number;
  /** `CARILLON_EVENT_MONTHS`: how long what devices told of sends is kept at least, by months; default 0: for ever. */
  eventMonths: number;
  /** `CARILLON_WEBHOOK_DAYS`: how long the log of webhooks is kept at least, by weeks; default 30, 0: for ever. */
  webhookDays: number;
  /** `CARILLON_HEARTBEAT_TIMEOUT_MS`: how long a worker may be silent before another takes over its batch; default 10 000. */
  heartbeatTimeoutMs: number;
  /** `CARILLON_RETRY_BASE_MS`: the first wait after a transient refusal, doubled each time; default 10 000. */
  retryBaseMs: number;
  /** `CARILLON_RETRY_MAX_MS`: the longest wait, also where a provider asks for more; default 3 600 000 (one hour). */
  retryMaxMs: number;
  /** `CARILLON_MAX_ATTEMPTS` for one device, default 8. */
  maxAttempts: number;
  /** `CARILLON_MAX_DOUBTS`: how often a device in doubt is sent to again, default 2. */
  maxDoubts: number;
  /** `CARILLON_MESSAGE_IDS`: whether the ids that FCM gives its messages are recorded, `keep` (default) or `omit`. */
  keepMessageIds: boolean;
  /** `CARILLON_RECONCILE_INTERVAL_MS`, default 5 000. */
  reconcileIntervalMs: number;
  /** `CARILLON_SHUTDOWN_GRACE_MS`: how long a stopping worker waits for answers under way; default 15 000. */
  shutdownGraceMs: number;
  /** `CARILLON_WORKFLOW_CACHE`: workflows kept in memory, default 300. */
  maxCachedWorkflows: number;
  /** `CARILLON_EXPORT_…`: where finished books are uploaded to; undefined: nowhere. */
  bookExport: BookExportSettings | undefined;
  /** `CARILLON_WORKFLOW_BUNDLE`: a bundle built ahead of time; unset: built at start. */
  workflowBundlePath: string | undefined;
}

/**
 * Reads a process's environment: `process.env`, or Deno's. @throws {ConfigError} naming every variable that is missing or
 * malformed.
 */
export function loadConfig(env: Environment): Config {
  return readSettings(env, readConfig);
}

export function readConfig(settings: Settings): Config {
  const jwt = settings.together('CARILLON_JWKS_URL', 'CARILLON_JWT_ISSUER', 'CARILLON_JWT_AUDIENCE');
  const jwtClaims = {
    scopeClaim: settings.text('CARILLON_JWT_SCOPE_CLAIM') ?? 'scope',
    appClaim: settings.text('CARILLON_JWT_APP_CLAIM') ?? 'carillon_app',
  };
  return {
    databaseUrl: settings.required('DATABASE_URL'),
    databaseMaxConnections: settings.integer('DATABASE_MAX_CONNECTIONS', 10),
    taskQueuePrefix: settings.text('CARILLON_TASK_QUEUE_PREFIX') ?? '',
    logLevel: settings.oneOf('LOG_LEVEL', ['debug', 'info', 'warn', 'error'], 'info'),
    proxy: readProxy(settings),
    masterKeys: readMasterKeys(settings),
    metrics: readMetricsAddress(settings),
    webhooks: { allowedNetworks: readNetworks(settings, 'CARILLON_WEBHOOK_ALLOWED_NETWORKS') },
    api: {
      host: settings.text('HOST') ?? '127.0.0.1',
      port: settings.integer('PORT', 8080, 0, 65_535),
      temporalDeadlineMs: settings.integer('CARILLON_TEMPORAL_DEADLINE_MS', 1_500),
      jwt: jwt && { jwksUrl: jwt[0], issuer: jwt[1], audience: jwt[2], ...jwtClaims },
      trustedProxies: settings.integer('CARILLON_TRUSTED_PROXIES', 0, 0),
      limits: {
        keyRequestsPerSecond: settings.integer('CARILLON_KEY_REQUESTS_PER_SECOND', 0, 0),
        importsPerApp: settings.integer('CARILLON_IMPORTS_PER_APP', 4),
        exportsPerApp: settings.integer('CARILLON_EXPORTS_PER_APP', 20),
      },
    },
    worker: {
      roles: settings.someOf('CARILLON_ROLES', workerRoles),
      batchSize: settings.optionalInteger('CARILLON_BATCH_SIZE'),
      windowSize: settings.integer('CARILLON_WINDOW_SIZE', 1_000),
      maxInFlight: settings.integer('CARILLON_MAX_IN_FLIGHT', 2_000),
      requestDeadlineMs: settings.integer('CARILLON_REQUEST_DEADLINE_MS', 15_000),
      concurrentBatches: settings.integer('CARILLON_CONCURRENT_BATCHES', 2),
      openBatches: settings.integer('CARILLON_OPEN_BATCHES', 20),
      batchesPerRun: settings.integer('CARILLON_BATCHES_PER_RUN', 0, 0),
      smallAudience: settings.integer('CARILLON_SMALL_AUDIENCE', 1_000, 0),
      lanes: settings.integer('CARILLON_LANES', 1, 1, 64),
      messageDays: settings.integer('CARILLON_MESSAGE_DAYS', 30, 0),
      auditMonths: settings.integer('CARILLON_AUDIT_MONTHS', 0, 0, 1_200),
      eventMonths: settings.integer('CARILLON_EVENT_MONTHS', 0, 0, 1_200),
      webhookDays: settings.integer('CARILLON_WEBHOOK_DAYS', 30, 0),
      heartbeatTimeoutMs: settings.integer('CARILLON_HEARTBEAT_TIMEOUT_MS', 10_000),
      retryBaseMs: settings.integer('CARILLON_RETRY_BASE_MS', 10_000),
      retryMaxMs: settings.integer('CARILLON_RETRY_MAX_MS', 3_600_000),
      maxAttempts: settings.integer('CARILLON_MAX_ATTEMPTS', 8),
      maxDoubts: settings.integer('CARILLON_MAX_DOUBTS', 2, 0),
      keepMessageIds: settings.oneOf('CARILLON_MESSAGE_IDS', ['keep', 'omit'], 'keep') === 'keep',
      reconcileIntervalMs: settings.integer('CARILLON_RECONCILE_INTERVAL_MS', 5_000),
      shutdownGraceMs: settings.integer('CARILLON_SHUTDOWN_GRACE_MS', 15_000),
      maxCachedWorkflows: settings.integer('CARILLON_WORKFLOW_CACHE', 300),
      bookExport: readBookExport(settings),
      workflowBundlePath: settings.text('CARILLON_WORKFLOW_BUNDLE'),
    },
  };
}

function readMetricsAddress(settings: Settings): MetricsAddress | undefined {
  const host = settings.text('CARILLON_METRICS_HOST') ?? '127.0.0.1';
  const port = settings.optionalInteger('CARILLON_METRICS_PORT', 0, 65_535);
  return port === undefined ? undefined : { host, port };
}

function readNetworks(settings: Settings, name: string): Network[] {
  const texts = (settings.text(name) ?? '').split(',').map((text) => text.trim());
  return texts
    .filter((text) => text !== '')
    .flatMap((text) => {
      try {
        return [parseNetwork(text)];
      } catch (error) {
        settings.problems.push(`${name}: ${(error as Error).message}`);
        return [];
      }
    });
}

function readProxy(settings: Settings): ProxySettings | undefined {
  const name = settings.text('https_proxy') === undefined ? 'HTTPS_PROXY' : 'https_proxy';
  const value = settings.text(name);
  if (value === undefined) return undefined;
  try {
    const exceptions = parseProxyExceptions(settings.text('no_proxy') ?? settings.text('NO_PROXY'));
    return { proxy: parseProxy(value), exceptions };
  } catch (error) {
    settings.problems.push(`${name} ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}
