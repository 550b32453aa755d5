import { z } from '@hono/zod-openapi';
import type { MiddlewareHandler } from 'hono';
import { eventIntake } from '../../db/record-events.ts';
import type { TakePlace } from '../access/places.ts';
import { whileValid } from '../access/while-valid.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { toByteStream } from '../http/byte-stream.ts';
import type { AppEnv } from '../http/env.ts';
import { isNdjson, ndjsonBody, ndjsonMediaType } from '../http/ndjson.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { runEvents } from './event-run.ts';
import {
  eventCountsShape,
  eventSchema,
  eventsBodySchema,
  maxEventsOfBody,
  toNewEvent,
  typeRefused,
} from './schemas.ts';
import { Tally } from './tally.ts';

const takenSchema = z.object(eventCountsShape).openapi('EventsTaken');

const failureSchema = z
  .object({
    line: z.int().openapi({ description: 'Counted from 1, blank lines included.' }),
    code: z.string(),
    field: z.string(),
    message: z.string(),
  })
  .openapi('EventFailure');

const progressShape = {
  ...eventCountsShape,
  failed: z.int(),
  lines: z.int().openapi({ description: 'Lines read, blank ones not counted.' }),
};

const progressSchema = z.object({ progress: z.object(progressShape) }).openapi('EventsProgress');

const summarySchema = z
  .object({
    ...progressShape,
    complete: z.boolean().openapi({ description: 'False: it ended early, `code` and `message` say why.' }),
    code: z.string().optional(),
    message: z.string().optional(),
  })
  .openapi('EventsSummary');

const postRoute = defineRoute({
  method: 'post',
  path: '/v1/events',
  scope: 'events:write',
  tags: ['Events'],
  summary: 'Tell what became of messages on their devices',
  description: `One event, ${maxEventsOfBody} at most in a list, or any number as NDJSON, a line each. A device counts once for each send and type, so whatever is told late, twice or by many at once is harmless. The answer to NDJSON is NDJSON: one line for each line with a fault, every ten seconds one that says how far it is, at the end one summary; ${maxEventsOfBody} lines count as a request towards the limit of the key. Content-Encoding: gzip is understood. A key with this scope alone may ship inside an app: it can do nothing else, and is told nothing of sends and devices.`,
  request: {
    body: {
      required: true,
      content: {
        'application/json': { schema: eventsBodySchema },
        'application/x-ndjson': { schema: eventSchema },
      },
    },
  },
  responses: {
    200: {
      description: 'Counted. Of NDJSON: faults and progress, then the summary.',
      content: {
        'application/json': { schema: takenSchema },
        'application/x-ndjson': { schema: z.union([failureSchema, progressSchema, summarySchema]) },
      },
    },
    ...problems(...bodyProblems),
  },
});

/** Lines are answered here, before the schema of a body looks at them. */
const takesLines =
  (deps: ApiDependencies, takePlace: TakePlace): MiddlewareHandler<AppEnv> =>
  async (c, next) => {
    if (!isNdjson(c.req.header('content-type'))) return next();
    const answers = runEvents(deps, c.var, whileValid(ndjsonBody(c.req.raw), c.var.isStillValid));
    return c.body(toByteStream(answers, takePlace(c.var.app.id)), 200, { 'Content-Type': ndjsonMediaType });
  };

export function events(deps: ApiDependencies, takePlace: TakePlace) {
  const record = eventIntake(deps.pool);
  return createRouter().openapi({ ...postRoute, middleware: takesLines(deps, takePlace) }, async (c) => {
    const body = c.req.valid('json');
    const now = Number(deps.now?.() ?? Date.now());
    const list = 'events' in body ? body.events : [body];
    const answers = await record(list.map((event) => toNewEvent(c.var.app.id, event, now)));
    const tally = new Tally(c.var.caller);
    const [refused] = tally.add(answers);
    // The others are counted all the same: to send them again is harmless.
    if (refused !== undefined) throw typeRefused('events' in body ? `events[${refused}].type` : 'type');
    return c.json(tally.told(), 200);
  });
}
