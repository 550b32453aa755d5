import { lookup } from 'node:dns/promises';
import process from 'node:process';
import type { Kysely } from 'kysely';
import { pino } from 'pino';
import { connect } from '../db/connect.ts';
import { databaseFault, describeDatabaseError, probeDatabase } from '../db/database-error.ts';
import { createMasterKeys } from '../db/master-keys.ts';
import type { Database } from '../db/schema.ts';
import { readConfig } from '../domain/config.ts';
import type { Logger } from '../domain/logger.ts';
import { chooseProxy } from '../domain/proxy.ts';
import { type Environment, readSettings } from '../domain/settings.ts';
import { within } from '../domain/within.ts';
import { configureProviders } from '../providers/open.ts';
import { createMetricsHandler } from '../telemetry/handler.ts';
import { watchProcess } from '../telemetry/process-metrics.ts';
import { openTracing } from '../telemetry/tracing.ts';
import { createJwtVerifier } from './access/jwt.ts';
import { createApp } from './app.ts';
import type { ApiDependencies } from './dependencies.ts';
import { type DocsAssets, loadDocsAssets } from './document/docs-assets.ts';
import { createTemporalWaker } from './notifications/temporal-waker.ts';

/** What PostgreSQL has to say is said by then, unless it is away: the API starts without it, and is not ready. */
const databaseAnswerMs = 3_000;

async function checkDatabase(db: Kysely<Database>, log: Logger): Promise<void> {
  const notYet = (reason: string) => log.warn({ reason }, 'the database cannot be used yet');
  try {
    const isHere = await within(
      probeDatabase(db).then(() => true),
      databaseAnswerMs,
    );
    if (!isHere) notYet(`no answer within ${databaseAnswerMs} ms`);
  } catch (error) {
    const reason = describeDatabaseError(error);
    if (databaseFault(error) !== 'misconfigured') return notYet(reason);
    await db.destroy();
    throw new Error(reason);
  }
}

/** For the entries: one line instead of a stack trace. */
export function endWithReason(error: Error): never {
  console.error(`The API cannot start: ${error.message}`);
  process.exit(1);
}

/**
 * The app with everything real behind it, as both entries need it. `stop` makes streams end themselves; `close` ends the
 * connections, after the last request.
 * @throws {ConfigError} and where PostgreSQL says that DATABASE_URL is wrong.
 */
export async function composeApi(env: Environment, peerAddress: NonNullable<ApiDependencies['peerAddress']>) {
  const { config, providers } = readSettings(env, (settings) => ({
    config: readConfig(settings),
    providers: configureProviders(settings),
  }));
  const log = pino({
    name: 'carillon-api',
    level: config.logLevel,
    redact: ['*.authorization', '*.device_token', '*.deviceToken'],
  });
  const { db, pool } = connect(config.databaseUrl, {
    maxConnections: config.databaseMaxConnections,
    applicationName: 'carillon-api',
    onIdleError: (err) => log.warn({ err }, 'a database connection broke'),
  });
  await checkDatabase(db, log);
  const tracing = await openTracing(env, 'carillon-api', log);
  const waker = createTemporalWaker({
    env,
    taskQueuePrefix: config.taskQueuePrefix,
    deadlineMs: config.api.temporalDeadlineMs,
    log,
    tracing,
  });
  const stopping = new AbortController();
  const app = createApp({
    db,
    pool,
    waker,
    log,
    tracing,
    verifyJwt: config.api.jwt && createJwtVerifier(db, config.api.jwt),
    docsAssets: await loadDocsAssets().catch((err: unknown): DocsAssets | undefined => {
      log.warn({ err }, 'Swagger UI is not installed: /docs is off');
      return undefined;
    }),
    masterKeys: createMasterKeys(config.masterKeys),
    providers,
    providerNetwork: { proxyFor: (url) => chooseProxy(config.proxy, url) },
    webhooks: {
      places: config.webhooks,
      resolve: async (hostname) => (await lookup(hostname, { all: true })).map(({ address }) => address),
    },
    stopping: stopping.signal,
    peerAddress,
    ...config.api.limits,
    trustedProxies: config.api.trustedProxies,
  });
  if (config.metrics) watchProcess({ role: 'api', pool, log });
  return {
    app,
    config,
    log,
    answerMetrics: createMetricsHandler(log),
    stop: () => stopping.abort(),
    async close() {
      await Promise.allSettled([db.destroy(), waker.close(), tracing?.close()]);
    },
  };
}
