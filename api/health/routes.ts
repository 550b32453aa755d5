import { z } from '@hono/zod-openapi';
import { databaseErrorCode, describeDatabaseError, probeDatabase } from '../../db/database-error.ts';
import { type HaltedLane, listHaltedLanesOfAllApps } from '../../db/halted-lanes.ts';
import { listUnreachableHostsOfAllApps } from '../../db/provider-hosts.ts';
import type { UnreachableHost } from '../../domain/notification.ts';
import { within } from '../../domain/within.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { urlProblems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { fromHaltedLane, haltedLaneSchema } from '../messages/lane-schema.ts';
import { fromUnreachableHost, unreachableHostSchema } from './unreachable-host.ts';

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

const readinessSchema = z
  .object({
    status: z.enum(['ready', 'not_ready']),
    database: z.string(),
    temporal: z.string().openapi({ description: 'Launches are accepted without it: a reconciler starts them later.' }),
    unreachable: z.array(unreachableHostSchema).openapi({
      description:
        'Hosts of push providers that workers cannot connect to. Requests are served all the same, and sends wait.',
    }),
    halted_lanes: z.array(haltedLaneSchema).openapi({
      description: 'What sends messages and stopped itself. Messages are accepted all the same, and wait.',
    }),
  })
  .openapi('Readiness');

const readyRoute = defineRoute({
  method: 'get',
  path: '/readyz',
  scope: 'open',
  tags: ['Health'],
  summary: 'Requests can be served',
  responses: {
    200: { description: 'PostgreSQL answers.', content: { 'application/json': { schema: readinessSchema } } },
    503: { description: 'PostgreSQL does not.', content: { 'application/json': { schema: readinessSchema } } },
    ...urlProblems,
  },
});

interface DatabaseState {
  database: string;
  unreachable: UnreachableHost[];
  haltedLanes: HaltedLane[];
}

const databaseDeadlineMs = 2_000;

/** Open to everyone: they say nothing that a load balancer need not know. */
export function health({ db, waker, stopping, log }: ApiDependencies) {
  /** Logged once for each fault, not with every question of a load balancer. */
  let loggedFault: string | undefined;

  async function checkDatabase(): Promise<DatabaseState> {
    const answer = Promise.all([
      listUnreachableHostsOfAllApps(db),
      listHaltedLanesOfAllApps(db),
      probeDatabase(db),
    ]).then(
      ([unreachable, haltedLanes]) => ({ database: 'reachable', unreachable, haltedLanes }),
      (error: unknown) => {
        const fault = databaseErrorCode(error);
        if (loggedFault !== fault) {
          log.error({ reason: describeDatabaseError(error) }, 'not ready: the database cannot be used');
        }
        loggedFault = fault;
        return { database: `unusable (${fault})`, unreachable: [], haltedLanes: [] };
      },
    );
    const late = { database: `no answer within ${databaseDeadlineMs} ms`, unreachable: [], haltedLanes: [] };
    const state = (await within(answer, databaseDeadlineMs)) ?? late;
    if (state.database === 'reachable') loggedFault = undefined;
    return state;
  }

  return createRouter()
    .openapi(healthRoute, (c) => c.json({ status: 'ok' as const }, 200))
    .openapi(readyRoute, async (c) => {
      const [{ database, unreachable, haltedLanes }, temporal] = await Promise.all([checkDatabase(), waker.check()]);
      const isReady = database === 'reachable' && !stopping?.aborted;
      return c.json(
        {
          ...{ status: isReady ? ('ready' as const) : ('not_ready' as const), database, temporal },
          unreachable: unreachable.map(fromUnreachableHost),
          halted_lanes: haltedLanes.map(fromHaltedLane),
        },
        isReady ? 200 : 503,
      );
    });
}
