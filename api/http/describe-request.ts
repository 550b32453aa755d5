import type { MiddlewareHandler } from 'hono';
import type { Logger } from '../../domain/logger.ts';
import { countRequest, requestsUnderWay } from '../../telemetry/http-metrics.ts';
import type { ApiEnv } from './env.ts';
import { routeOf } from './route-of.ts';

/** An id and a logger for the request, and one line in the log and in the metrics after it. */
export function describeRequest(log: Logger): MiddlewareHandler<ApiEnv> {
  return async function describeRequest(c, next) {
    const startedAt = performance.now();
    const requestId = crypto.randomUUID();
    c.set('requestId', requestId);
    c.set('log', log);
    c.header('X-Request-Id', requestId);
    c.header('X-Content-Type-Options', 'nosniff');
    requestsUnderWay.inc();
    try {
      await next();
    } finally {
      requestsUnderWay.dec();
    }
    const answer = { method: c.req.method, route: routeOf(c), status: c.res.status };
    const ms = performance.now() - startedAt;
    countRequest(answer, ms / 1000);
    log.debug({ requestId, ...answer, ms: Math.round(ms) }, 'request');
  };
}
