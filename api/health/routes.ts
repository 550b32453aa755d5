import { z } from '@hono/zod-openapi';
import type { ApiDependencies } from '../dependencies.ts';
import { urlProblems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { ReadinessCheck } from './readiness.ts';
import { fromReadiness, readinessSchema } from './schemas.ts';

const healthRoute = defineRoute({
  method: 'get',
  path: '/healthz',
  scope: 'open',
  tags: ['Health'],
  summary: 'The process lives',
  responses: {
    200: { description: 'Alive.', content: { 'application/json': { schema: z.object({ status: z.literal('ok') }) } } },
    ...urlProblems,
  },
});

const readyRoute = defineRoute({
  method: 'get',
  path: '/readyz',
  scope: 'open',
  tags: ['Health'],
  summary: 'Requests can be served',
  responses: {
    200: {
      description: 'PostgreSQL answers, and has all migrations.',
      content: { 'application/json': { schema: readinessSchema } },
    },
    503: { description: 'It does not, or lacks some.', content: { 'application/json': { schema: readinessSchema } } },
    ...urlProblems,
  },
});

/** Open to everyone. */
export function health(deps: ApiDependencies) {
  const readiness = new ReadinessCheck(deps);
  return createRouter()
    .openapi(healthRoute, (c) => c.json({ status: 'ok' as const }, 200))
    .openapi(readyRoute, async (c) => {
      const found = await readiness.read();
      return c.json(fromReadiness(found), found.isReady ? 200 : 503);
    });
}
