import { apnsPushTypeRules } from '../providers/apns/payload.ts';
import { type ProxySettings, parseProxy, parseProxyExceptions } from './proxy.ts';
import { type WorkerRole, workerRoles } from './task-queues.ts';

/**
 * Every setting of Carillon, read from environment variables in this one place. Entries pass `process.env` (or Deno's); an
 * empty text counts as unset. Temporal's own settings (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, TLS, API key) are read by
 * `@temporalio/envconfig`.
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
   * `HTTPS_PROXY` (`http://` or `https://`, with user and password where it asks for them) and `NO_PROXY`: the way to Apple
   * and Google. Also in lower case, which then counts.
   */
  proxy: ProxySettings | undefined;
  api: ApiConfig;
  worker: WorkerConfig;
  apns: ApnsConfig;
  fcm: FcmConfig;
}

export interface ApiConfig {
  /** `HOST`, default 127.0.0.1. */
  host: string;
  /** `PORT`, default 8080. */
  port: number;
  /** `CARILLON_TEMPORAL_DEADLINE_MS`: how long a call to Temporal may take before the launch is left to the reconciler; default 1 500. */
  temporalDeadlineMs: number;
  /** `CARILLON_JWKS_URL`, `CARILLON_JWT_ISSUER`, `CARILLON_JWT_AUDIENCE`: JWTs of an outside issuer; unset: API keys only. */
  jwt: { jwksUrl: string; issuer: string; audience: string } | undefined;
}

export interface WorkerConfig {
  /** `CARILLON_ROLES`: comma-separated; default all. */
  roles: WorkerRole[];
  /** `CARILLON_BATCH_SIZE`: devices a batch, default 10 000. */
  batchSize: number;
  /** `CARILLON_WINDOW_SIZE`: devices that one reservation may cover at most, default 1 000. */
  windowSize: number;
  /** `CARILLON_MAX_IN_FLIGHT`: requests under way at once for one batch, default 2 000. */
  maxInFlight: number;
  /** `CARILLON_REQUEST_DEADLINE_MS`: a provider that has not answered by then leaves the device in doubt; default 15 000. */
  requestDeadlineMs: number;
  /** `CARILLON_CONCURRENT_BATCHES`: batches that one process sends at once for one provider, default 2. */
  concurrentBatches: number;
  /** `CARILLON_OPEN_BATCHES`: batch workflows that one notification keeps open at once, default 20. */
  openBatches: number;
  /** `CARILLON_BATCHES_PER_RUN`: the send continues as new after so many; default 0: when Temporal suggests it. */
  batchesPerRun: number;
  /** `CARILLON_HEARTBEAT_TIMEOUT_MS`: a silent delivery is tried by another worker after this; default 10 000. */
  heartbeatTimeoutMs: number;
  /** `CARILLON_RETRY_BASE_MS`: the first wait after a transient refusal, doubled each time; default 10 000. */
  retryBaseMs: number;
  /** `CARILLON_RETRY_MAX_MS`: the longest wait, whoever asks for it; default 3 600 000 (one hour). */
  retryMaxMs: number;
  /** `CARILLON_MAX_ATTEMPTS` for one device, default 8. */
  maxAttempts: number;
  /** `CARILLON_MAX_DOUBTS`: how often a device without an answer is sent to again, default 2. */
  maxDoubts: number;
  /** `CARILLON_RECONCILE_INTERVAL_MS`, default 5 000. */
  reconcileIntervalMs: number;
  /** `CARILLON_SHUTDOWN_GRACE_MS`: for answers under way when the worker is asked to stop; default 15 000. */
  shutdownGraceMs: number;
  /** `CARILLON_WORKFLOW_CACHE`: workflows kept in memory, default 300. */
  maxCachedWorkflows: number;
  /** `CARILLON_WORKFLOW_BUNDLE`: a bundle built ahead of time; unset: built at start. */
  workflowBundlePath: string | undefined;
}

export interface ApnsConfig {
  /** `APNS_KEY_FILE` (p8), `APNS_KEY_ID`, `APNS_TEAM_ID`; all three or none. */
  key: { file: string; keyId: string; teamId: string } | undefined;
  /** `APNS_CERTIFICATE_FILE` (PEM or p12) and `APNS_CERTIFICATE_PASSWORD`, instead of a key. */
  certificate: { file: string; password: string } | undefined;
  /** `APNS_TOPIC`: the app's bundle id. */
  topic: string | undefined;
  /** `APNS_ENVIRONMENT` of devices that name none: production (default) or sandbox. */
  environment: 'production' | 'sandbox';
  /** `APNS_URL`, `APNS_SANDBOX_URL`: other endpoints than Apple's, for the simulator. */
  url: string | undefined;
  sandboxUrl: string | undefined;
}

export interface FcmConfig {
  /** `FCM_SERVICE_ACCOUNT_FILE` */
  serviceAccountFile: string | undefined;
  /** `FCM_PROJECT_ID`, default: the service account's. */
  projectId: string | undefined;
  /** `FCM_URL`, `FCM_TOKEN_URL`: other endpoints than Google's, for the simulator. */
  url: string | undefined;
  tokenUrl: string | undefined;
}

export type Environment = Record<string, string | undefined>;

/** Wrong or missing settings, all of them at once, each by its variable's name. */
export class ConfigError extends Error {
  readonly code = 'config_invalid';

  constructor(problems: string[]) {
    super(`Configuration: ${problems.join('; ')}`);
    this.name = 'ConfigError';
  }
}

/** @throws {ConfigError} naming every variable that is missing or malformed. */
export function loadConfig(env: Environment): Config {
  const problems: string[] = [];
  const text = (name: string): string | undefined => env[name]?.trim() || undefined;
  const required = (name: string): string => {
    const value = text(name);
    if (value === undefined) problems.push(`${name} is not set`);
    return value ?? '';
  };
  const integer = (name: string, fallback: number, min = 1): number => {
    const value = text(name);
    if (value === undefined) return fallback;
    const number = Number(value);
    if (Number.isSafeInteger(number) && number >= min) return number;
    problems.push(`${name} must be a whole number of at least ${min}, not "${value}"`);
    return fallback;
  };
  const oneOf = <T extends string>(name: string, allowed: readonly T[], fallback: T): T => {
    const value = text(name);
    if (value === undefined) return fallback;
    if ((allowed as readonly string[]).includes(value)) return value as T;
    problems.push(`${name} must be one of ${allowed.join(', ')}, not "${value}"`);
    return fallback;
  };
  /** All of the variables or none of them. */
  const together = (...names: string[]): string[] | undefined => {
    const values = names.map(text);
    if (values.every((value) => value === undefined)) return undefined;
    names.forEach((name, i) => {
      if (values[i] === undefined) problems.push(`${name} is not set (it belongs to ${names[0]})`);
    });
    return values.map((value) => value ?? '');
  };
  const proxy = (): ProxySettings | undefined => {
    const name = text('https_proxy') === undefined ? 'HTTPS_PROXY' : 'https_proxy';
    const value = text(name);
    if (value === undefined) return undefined;
    try {
      return { proxy: parseProxy(value), exceptions: parseProxyExceptions(text('no_proxy') ?? text('NO_PROXY')) };
    } catch (error) {
      problems.push(`${name} ${error instanceof Error ? error.message : error}`);
      return undefined;
    }
  };
  const roles = (text('CARILLON_ROLES') ?? workerRoles.join(',')).split(',').map((role) => role.trim());
  for (const role of roles) {
    if (!(workerRoles as readonly string[]).includes(role)) {
      problems.push(`CARILLON_ROLES: "${role}" is not one of ${workerRoles.join(', ')}`);
    }
  }
  const key = together('APNS_KEY_FILE', 'APNS_KEY_ID', 'APNS_TEAM_ID');
  const certificateFile = text('APNS_CERTIFICATE_FILE');
  const jwt = together('CARILLON_JWKS_URL', 'CARILLON_JWT_ISSUER', 'CARILLON_JWT_AUDIENCE');
  const topic = text('APNS_TOPIC');
  if ((key || certificateFile) && !topic) problems.push('APNS_TOPIC is not set (it belongs to the APNs credential)');
  if (topic !== undefined) problems.push(...topicProblems(topic));

  const config: Config = {
    databaseUrl: required('DATABASE_URL'),
    databaseMaxConnections: integer('DATABASE_MAX_CONNECTIONS', 10),
    taskQueuePrefix: text('CARILLON_TASK_QUEUE_PREFIX') ?? '',
    logLevel: oneOf('LOG_LEVEL', ['debug', 'info', 'warn', 'error'], 'info'),
    proxy: proxy(),
    api: {
      host: text('HOST') ?? '127.0.0.1',
      port: integer('PORT', 8080, 0),
      temporalDeadlineMs: integer('CARILLON_TEMPORAL_DEADLINE_MS', 1_500),
      jwt: jwt ? { jwksUrl: jwt[0]!, issuer: jwt[1]!, audience: jwt[2]! } : undefined,
    },
    worker: {
      roles: roles as WorkerRole[],
      batchSize: integer('CARILLON_BATCH_SIZE', 10_000),
      windowSize: integer('CARILLON_WINDOW_SIZE', 1_000),
      maxInFlight: integer('CARILLON_MAX_IN_FLIGHT', 2_000),
      requestDeadlineMs: integer('CARILLON_REQUEST_DEADLINE_MS', 15_000),
      concurrentBatches: integer('CARILLON_CONCURRENT_BATCHES', 2),
      openBatches: integer('CARILLON_OPEN_BATCHES', 20),
      batchesPerRun: integer('CARILLON_BATCHES_PER_RUN', 0, 0),
      heartbeatTimeoutMs: integer('CARILLON_HEARTBEAT_TIMEOUT_MS', 10_000),
      retryBaseMs: integer('CARILLON_RETRY_BASE_MS', 10_000),
      retryMaxMs: integer('CARILLON_RETRY_MAX_MS', 3_600_000),
      maxAttempts: integer('CARILLON_MAX_ATTEMPTS', 8),
      maxDoubts: integer('CARILLON_MAX_DOUBTS', 2, 0),
      reconcileIntervalMs: integer('CARILLON_RECONCILE_INTERVAL_MS', 5_000),
      shutdownGraceMs: integer('CARILLON_SHUTDOWN_GRACE_MS', 15_000),
      maxCachedWorkflows: integer('CARILLON_WORKFLOW_CACHE', 300),
      workflowBundlePath: text('CARILLON_WORKFLOW_BUNDLE'),
    },
    apns: {
      key: key ? { file: key[0]!, keyId: key[1]!, teamId: key[2]! } : undefined,
      certificate: certificateFile
        ? { file: certificateFile, password: text('APNS_CERTIFICATE_PASSWORD') ?? '' }
        : undefined,
      topic,
      environment: oneOf('APNS_ENVIRONMENT', ['production', 'sandbox'], 'production'),
      url: text('APNS_URL'),
      sandboxUrl: text('APNS_SANDBOX_URL'),
    },
    fcm: {
      serviceAccountFile: text('FCM_SERVICE_ACCOUNT_FILE'),
      projectId: text('FCM_PROJECT_ID'),
      url: text('FCM_URL'),
      tokenUrl: text('FCM_TOKEN_URL'),
    },
  };
  if (problems.length > 0) throw new ConfigError(problems);
  return config;
}

/** The topic of a push type is the bundle id with a suffix that is added by itself: given here too, it would stand there twice. */
function topicProblems(topic: string): string[] {
  const suffixes = Object.values(apnsPushTypeRules).map(({ topicSuffix }) => topicSuffix);
  const suffix = suffixes.find((text) => text !== '' && topic.endsWith(text));
  if (suffix !== undefined) {
    const bundleId = topic.slice(0, -suffix.length);
    return [`APNS_TOPIC must be the bundle id "${bundleId}", not "${topic}": "${suffix}" is added by the push type`];
  }
  if (/^[A-Za-z0-9._-]+$/.test(topic)) return [];
  return [`APNS_TOPIC must be a bundle id (letters, digits, ".", "-", "_"), not "${topic}"`];
}
