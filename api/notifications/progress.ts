import { z } from '@hono/zod-openapi';
import { type SSEStreamingApi, streamSSE } from 'hono/streaming';
import { findSummary } from '../../db/notifications.ts';
import type { NotificationSummary } from '../../domain/notification.ts';
import { notificationStates } from '../../domain/notification-state.ts';
import { pause } from '../../domain/pause.ts';
import type { TakePlace } from '../access/places.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { answeredInstantOrNull } from '../http/instant.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { booksSchema, checkedId, fromBooks, haltSchema, notificationParams } from './schemas.ts';

/** Proxies close a connection that is silent for a minute; half of the shortest common limit. */
const heartbeatMs = 15_000;

const progressSchema = z
  .object({
    id: z.uuid(),
    state: z.enum(notificationStates),
    halt: haltSchema,
    books: booksSchema,
    finished_at: answeredInstantOrNull,
  })
  .openapi('Progress');

const progressRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications/{id}/progress',
  scope: 'notifications:read',
  tags: ['Notifications'],
  summary: 'Follow a send',
  description:
    'Server-sent events: `progress` with state and books whenever they changed, `end` with the same once every device has its outcome.',
  request: { params: notificationParams },
  responses: {
    200: { description: 'Events until the end.', content: { 'text/event-stream': { schema: progressSchema } } },
    ...problems(404),
  },
});

export function notificationProgress(
  { db, stopping, progressIntervalMs = 500 }: ApiDependencies,
  takePlace: TakePlace,
) {
  return createRouter().openapi(progressRoute, async (c) => {
    const id = checkedId(c.req.valid('param').id);
    const find = () => findSummary(db, c.var.app.id, id);
    const findForCaller = async () => ((await c.var.isStillValid()) ? find() : undefined);
    const first = await find();
    if (!first) throw notFound('notification');
    // Nginx collects answers unless told not to.
    c.header('X-Accel-Buffering', 'no');
    const leavePlace = takePlace(c.var.app.id);
    return streamSSE(c, (stream) => {
      const gone = new AbortController();
      stream.onAbort(() => gone.abort());
      const ended = AbortSignal.any([gone.signal, ...(stopping ? [stopping] : [])]);
      return follow(stream, first, findForCaller, progressIntervalMs, ended).finally(leavePlace);
    }) as never;
  });
}

/** Until the send has ended, `find` finds it no more, or `ended`: the client has gone or the process is asked to stop. */
async function follow(
  stream: SSEStreamingApi,
  first: NotificationSummary,
  find: () => Promise<NotificationSummary | undefined>,
  intervalMs: number,
  ended: AbortSignal,
): Promise<void> {
  let current: NotificationSummary | undefined = first;
  let said = '';
  let saidAt = performance.now();
  while (current && !ended.aborted) {
    const data = describe(current);
    if (current.finishedAt) return stream.writeSSE({ event: 'end', data });
    if (data !== said) {
      await stream.writeSSE({ event: 'progress', data });
      said = data;
      saidAt = performance.now();
    } else if (performance.now() - saidAt >= heartbeatMs) {
      await stream.write(': still here\n\n');
      saidAt = performance.now();
    }
    await pause(intervalMs, ended);
    // The database may be away for a moment: the stream waits for it instead of ending.
    current = await find().catch(() => current);
  }
}

function describe(notification: NotificationSummary): string {
  const { id, state, halt, finishedAt } = notification;
  return JSON.stringify({ id, state, halt, books: fromBooks(notification.books), finished_at: finishedAt });
}
