import { pino } from 'pino';
import { connect } from '../db/connect.ts';
import { type Environment, loadConfig } from '../domain/config.ts';
import { createApp } from './app.ts';
import type { DocsAssets } from './dependencies.ts';
import { loadDocsAssets } from './docs-assets.ts';
import { createJwtVerifier } from './jwt.ts';
import { createTemporalWaker } from './temporal.ts';

/**
 * The app with everything real behind it, as both entries need it. `stop` makes streams end themselves; `close` ends the
 * connections, after the last request.
 * @throws {ConfigError}
 */
export async function composeApi(env: Environment) {
  const config = loadConfig(env);
  const log = pino({
    name: 'carillon-api',
    level: config.logLevel,
    redact: ['*.authorization', '*.device_token', '*.deviceToken'],
  });
  const { db } = connect(config.databaseUrl, {
    maxConnections: config.databaseMaxConnections,
    applicationName: 'carillon-api',
    onIdleError: (err) => log.warn({ err }, 'a database connection broke'),
  });
  const waker = createTemporalWaker({
    env,
    taskQueuePrefix: config.taskQueuePrefix,
    deadlineMs: config.api.temporalDeadlineMs,
    log,
  });
  const stopping = new AbortController();
  const app = createApp({
    db,
    waker,
    log,
    verifyJwt: config.api.jwt && createJwtVerifier(db, config.api.jwt),
    docsAssets: await loadDocsAssets().catch((err: unknown): DocsAssets | undefined => {
      log.warn({ err }, 'Swagger UI is not installed: /docs is off');
      return undefined;
    }),
    stopping: stopping.signal,
  });
  return {
    app,
    config,
    log,
    stop: () => stopping.abort(),
    async close() {
      await Promise.allSettled([db.destroy(), waker.close()]);
    },
  };
}
