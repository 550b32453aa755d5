import type { MiddlewareHandler } from 'hono';
import type { Tracing } from '../../telemetry/tracing.ts';
import type { ApiEnv } from './env.ts';
import { routeOf } from './route-of.ts';

/** A span for each request, of the caller's trace where it names one. The pattern of the route is told, and no path: it may hold ids of people. */
export function traceRequests(tracing: Tracing | undefined): MiddlewareHandler<ApiEnv> {
  if (tracing === undefined) return (_, next) => next();
  return (c, next) => {
    const { method } = c.req;
    const attributes = { 'http.request.method': method };
    return tracing.inSpan(method, { kind: 'server', attributes, parent: c.req.header('traceparent') }, async (span) => {
      await next();
      const route = routeOf(c);
      span.rename(`${method} ${route}`);
      span.set({
        'http.route': route,
        'http.response.status_code': c.res.status,
        'carillon.request_id': c.get('requestId'),
      });
      if (c.res.status >= 500) span.fail(String(c.res.status));
    });
  };
}
