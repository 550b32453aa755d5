import type { MiddlewareHandler } from 'hono';
import type { Logger } from '../../domain/logger.ts';
import type { ApiEnv } from './env.ts';

/** An id and a logger for the request, and one line in the log after it. */
export function describeRequest(log: Logger): MiddlewareHandler<ApiEnv> {
  return async function describeRequest(c, next) {
    const startedAt = performance.now();
    const requestId = crypto.randomUUID();
    c.set('requestId', requestId);
    c.set('log', log);
    c.header('X-Request-Id', requestId);
    c.header('X-Content-Type-Options', 'nosniff');
    await next();
    // The pattern, not the path: a path holds the ids that the caller gave its devices.
    const fields = { requestId, method: c.req.method, route: c.req.routePath, status: c.res.status };
    log.debug({ ...fields, ms: Math.round(performance.now() - startedAt) }, 'request');
  };
}
