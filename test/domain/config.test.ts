import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Config, loadConfig } from '../../domain/config.ts';
import { ConfigError, type Environment } from '../../domain/settings.ts';
import { workerRoles } from '../../domain/task-queues.ts';

const load = (env: Environment) => loadConfig({ DATABASE_URL: 'postgres://x', ...env });

function problemsOf(env: Environment): string[] {
  try {
    loadConfig(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message.replace(/^Configuration: /, '').split('; ');
  }
  return [];
}

type NumberRow = [
  variable: string,
  read: (config: Config) => number | undefined,
  fallback: number | undefined,
  least: 0 | 1,
  most?: number,
];
const numbers: NumberRow[] = [
  ['DATABASE_MAX_CONNECTIONS', (config) => config.databaseMaxConnections, 10, 1],
  ['PORT', ({ api }) => api.port, 8_080, 0, 65_535],
  ['CARILLON_METRICS_PORT', ({ metrics }) => metrics?.port, undefined, 0, 65_535],
  ['CARILLON_TEMPORAL_DEADLINE_MS', ({ api }) => api.temporalDeadlineMs, 1_500, 1],
  ['CARILLON_TRUSTED_PROXIES', ({ api }) => api.trustedProxies, 0, 0],
  ['CARILLON_KEY_REQUESTS_PER_SECOND', ({ api }) => api.limits.keyRequestsPerSecond, 0, 0],
  ['CARILLON_IMPORTS_PER_APP', ({ api }) => api.limits.importsPerApp, 4, 1],
  ['CARILLON_EXPORTS_PER_APP', ({ api }) => api.limits.exportsPerApp, 20, 1],
  ['CARILLON_BATCH_SIZE', ({ worker }) => worker.batchSize, undefined, 1],
  ['CARILLON_WINDOW_SIZE', ({ worker }) => worker.windowSize, 1_000, 1],
  ['CARILLON_MAX_IN_FLIGHT', ({ worker }) => worker.maxInFlight, 2_000, 1],
  ['CARILLON_REQUEST_DEADLINE_MS', ({ worker }) => worker.requestDeadlineMs, 15_000, 1],
  ['CARILLON_CONCURRENT_BATCHES', ({ worker }) => worker.concurrentBatches, 2, 1],
  ['CARILLON_OPEN_BATCHES', ({ worker }) => worker.openBatches, 20, 1],
  ['CARILLON_BATCHES_PER_RUN', ({ worker }) => worker.batchesPerRun, 0, 0],
  ['CARILLON_SMALL_AUDIENCE', ({ worker }) => worker.smallAudience, 1_000, 0],
  ['CARILLON_LANES', ({ worker }) => worker.lanes, 1, 1, 64],
  ['CARILLON_MESSAGE_DAYS', ({ worker }) => worker.messageDays, 30, 0],
  ['CARILLON_AUDIT_MONTHS', ({ worker }) => worker.auditMonths, 0, 0, 1_200],
  ['CARILLON_EVENT_MONTHS', ({ worker }) => worker.eventMonths, 0, 0, 1_200],
  ['CARILLON_WEBHOOK_DAYS', ({ worker }) => worker.webhookDays, 30, 0],
  ['CARILLON_HEARTBEAT_TIMEOUT_MS', ({ worker }) => worker.heartbeatTimeoutMs, 10_000, 1],
  ['CARILLON_RETRY_BASE_MS', ({ worker }) => worker.retryBaseMs, 10_000, 1],
  ['CARILLON_RETRY_MAX_MS', ({ worker }) => worker.retryMaxMs, 3_600_000, 1],
  ['CARILLON_MAX_ATTEMPTS', ({ worker }) => worker.maxAttempts, 8, 1],
  ['CARILLON_MAX_DOUBTS', ({ worker }) => worker.maxDoubts, 2, 0],
  ['CARILLON_RECONCILE_INTERVAL_MS', ({ worker }) => worker.reconcileIntervalMs, 5_000, 1],
  ['CARILLON_SHUTDOWN_GRACE_MS', ({ worker }) => worker.shutdownGraceMs, 15_000, 1],
  ['CARILLON_WORKFLOW_CACHE', ({ worker }) => worker.maxCachedWorkflows, 300, 1],
];

type TextRow = [variable: string, read: (config: Config) => unknown, fallback: unknown];
const texts: TextRow[] = [
  ['CARILLON_TASK_QUEUE_PREFIX', (config) => config.taskQueuePrefix, ''],
  ['HOST', ({ api }) => api.host, '127.0.0.1'],
  ['CARILLON_WORKFLOW_BUNDLE', ({ worker }) => worker.workflowBundlePath, undefined],
];

const jwt = ['CARILLON_JWKS_URL', 'CARILLON_JWT_ISSUER', 'CARILLON_JWT_AUDIENCE'] as const;
const jwtClaims = ['CARILLON_JWT_SCOPE_CLAIM', 'CARILLON_JWT_APP_CLAIM'];
const others = [
  ...[
    'DATABASE_URL',
    'LOG_LEVEL',
    'CARILLON_METRICS_HOST',
    'CARILLON_ROLES',
    'CARILLON_MESSAGE_IDS',
    'CARILLON_WEBHOOK_ALLOWED_NETWORKS',
    ...jwt,
    ...jwtClaims,
  ],
];
/** In `proxy.test.ts`, `master-keys.test.ts` and `book-export.test.ts`. */
const elsewhere = [
  ...['https_proxy', 'HTTPS_PROXY', 'no_proxy', 'NO_PROXY', 'CARILLON_MASTER_KEYS'],
  ...['BUCKET', 'ENDPOINT', 'REGION', 'PREFIX', 'FORCE_PATH_STYLE', 'SINCE'].map(
    (name) => `CARILLON_EXPORT_S3_${name}`,
  ),
];

test('every setting that is read has its rule here', () => {
  const read = new Set<string>();
  const given: Environment = { DATABASE_URL: 'postgres://x', HTTPS_PROXY: 'http://proxy' };
  loadConfig(
    new Proxy(given, {
      get(env, name: string) {
        read.add(name);
        return env[name];
      },
    }),
  );
  const ruled = [
    ...numbers.map(([variable]) => variable),
    ...texts.map(([variable]) => variable),
    ...others,
    ...elsewhere,
  ];
  assert.deepEqual([...read].sort(), ruled.sort());
});

describe('a number', () => {
  for (const [variable, read, fallback, least, most] of numbers) {
    const range = most === undefined ? `of at least ${least}` : `from ${least} to ${most}`;
    test(`${variable} is a whole number ${range}, and ${fallback} when it is unset or empty`, () => {
      assert.equal(read(load({})), fallback);
      assert.equal(read(load({ [variable]: '' })), fallback);
      for (const number of [least, most ?? 77_777]) assert.equal(read(load({ [variable]: String(number) })), number);
      for (const value of [String(least - 1), String((most ?? Number.MAX_SAFE_INTEGER) + 1), '1.5', 'many']) {
        assert.deepEqual(problemsOf({ DATABASE_URL: 'x', [variable]: value }), [
          `${variable} must be a whole number ${range}, not "${value}"`,
        ]);
      }
    });
  }
});

describe('a text', () => {
  for (const [variable, read, fallback] of texts) {
    test(`${variable} is taken as it is, and ${JSON.stringify(fallback)} when it is unset or empty`, () => {
      assert.equal(read(load({})), fallback);
      assert.equal(read(load({ [variable]: '' })), fallback);
      assert.equal(read(load({ [variable]: 'some-text' })), 'some-text');
    });
  }

  test('DATABASE_URL is required', () => {
    assert.equal(load({ DATABASE_URL: 'postgres://db/carillon' }).databaseUrl, 'postgres://db/carillon');
    for (const env of [{}, { DATABASE_URL: '' }]) assert.deepEqual(problemsOf(env), ['DATABASE_URL is not set']);
  });
});

test('LOG_LEVEL is one of four words, and info when it is unset', () => {
  assert.equal(load({}).logLevel, 'info');
  for (const level of ['debug', 'info', 'warn', 'error']) assert.equal(load({ LOG_LEVEL: level }).logLevel, level);
  for (const level of ['trace', 'INFO', '30']) {
    assert.deepEqual(problemsOf({ DATABASE_URL: 'x', LOG_LEVEL: level }), [
      `LOG_LEVEL must be one of debug, info, warn, error, not "${level}"`,
    ]);
  }
});

test('CARILLON_METRICS_HOST counts where there is a port, and is this machine alone when it is unset', () => {
  assert.equal(load({ CARILLON_METRICS_HOST: '0.0.0.0' }).metrics, undefined);
  assert.deepEqual(load({ CARILLON_METRICS_PORT: '9464' }).metrics, { host: '127.0.0.1', port: 9464 });
  const both = { CARILLON_METRICS_HOST: '0.0.0.0', CARILLON_METRICS_PORT: '0' };
  assert.deepEqual(load(both).metrics, { host: '0.0.0.0', port: 0 });
});

test('CARILLON_WEBHOOK_ALLOWED_NETWORKS lists networks, and is empty when it is unset', () => {
  const named = (text: string) => load({ CARILLON_WEBHOOK_ALLOWED_NETWORKS: text }).webhooks.allowedNetworks;
  assert.deepEqual(named(''), []);
  assert.deepEqual(
    named('10.0.0.0/8, fd00::/8').map(([address, bits]) => `${address}/${bits}`),
    ['10.0.0.0/8', 'fd00::/8'],
  );
  assert.deepEqual(problemsOf({ DATABASE_URL: 'x', CARILLON_WEBHOOK_ALLOWED_NETWORKS: '10.0.0.0, 10.0.0.0/33' }), [
    'CARILLON_WEBHOOK_ALLOWED_NETWORKS: "10.0.0.0" is no network such as 10.0.0.0/8 or fd00::/8',
    'CARILLON_WEBHOOK_ALLOWED_NETWORKS: "10.0.0.0/33" is no network such as 10.0.0.0/8 or fd00::/8',
  ]);
});

test('a worker has all roles, or those that CARILLON_ROLES lists', () => {
  assert.deepEqual(load({}).worker.roles, workerRoles);
  for (const role of workerRoles) assert.deepEqual(load({ CARILLON_ROLES: role }).worker.roles, [role]);
  assert.deepEqual(load({ CARILLON_ROLES: ' fcm, notifications ' }).worker.roles, ['fcm', 'notifications']);
  assert.deepEqual(load({ CARILLON_ROLES: 'apns,apns' }).worker.roles, ['apns'], 'each once');
  assert.deepEqual(problemsOf({ DATABASE_URL: 'x', CARILLON_ROLES: 'apns,mail,' }), [
    `CARILLON_ROLES: "mail" is not one of ${workerRoles.join(', ')}`,
    `CARILLON_ROLES: "" is not one of ${workerRoles.join(', ')}`,
  ]);
});

test('JWTs of an outside issuer need all three of their settings, or none', () => {
  assert.equal(load({}).api.jwt, undefined);
  const [jwksUrl, issuer, audience] = ['https://issuer.example/jwks', 'https://issuer.example', 'carillon'];
  const all = Object.fromEntries(jwt.map((variable, i) => [variable, [jwksUrl, issuer, audience][i]]));
  const usual = { scopeClaim: 'scope', appClaim: 'carillon_app' };
  assert.deepEqual(load(all).api.jwt, { jwksUrl, issuer, audience, ...usual });
  const named = load({ ...all, CARILLON_JWT_SCOPE_CLAIM: 'permissions', CARILLON_JWT_APP_CLAIM: 'app' }).api.jwt;
  assert.deepEqual([named?.scopeClaim, named?.appClaim], ['permissions', 'app']);
  for (const missing of jwt) {
    assert.deepEqual(problemsOf({ DATABASE_URL: 'x', ...all, [missing]: '' }), [
      `${missing} is not set (it belongs to CARILLON_JWKS_URL)`,
    ]);
  }
});

test('all that is wrong is named at once, without a word of what is secret', () => {
  const problems = problemsOf({
    ...Object.fromEntries(numbers.map(([variable]) => [variable, '-1'])),
    LOG_LEVEL: 'loud',
    CARILLON_ROLES: 'mail',
    CARILLON_JWKS_URL: 'https://user:s3cret@issuer.example/jwks',
    HTTPS_PROXY: 'socks5://user:s3cret@proxy',
  });
  assert.deepEqual(
    problems.map((problem) => /^\w+/.exec(problem)![0]).sort(),
    [
      ...numbers.map(([variable]) => variable),
      ...['DATABASE_URL', 'LOG_LEVEL', 'CARILLON_ROLES', 'CARILLON_JWT_ISSUER', 'CARILLON_JWT_AUDIENCE', 'HTTPS_PROXY'],
    ].sort(),
  );
  assert.doesNotMatch(problems.join(), /s3cret/);
  assert.deepEqual(problemsOf({ DATABASE_URL: 'postgres://user:s3cret@db', PORT: 'http' }), [
    'PORT must be a whole number from 0 to 65535, not "http"',
  ]);
});
