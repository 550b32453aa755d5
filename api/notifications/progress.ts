import { createRoute, z } from '@hono/zod-openapi';
import { type SSEStreamingApi, streamSSE } from 'hono/streaming';
import { findSummary } from '../../db/notifications.ts';
import type { NotificationSummary } from '../../domain/notification.ts';
import { notificationStates } from '../../domain/notification-state.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { problems } from '../http/problem-schema.ts';
import { notFound } from '../http/problems.ts';
import { createRouter } from '../http/router.ts';
import { answeredInstantOrNull } from '../http/schemas.ts';
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

const progressRoute = createRoute({
  method: 'get',
  path: '/v1/notifications/{id}/progress',
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

export function progress({ db, stopping, progressIntervalMs = 500 }: ApiDependencies) {
  return createRouter().openapi(progressRoute, async (c) => {
    const id = checkedId(c.req.valid('param').id);
    const { appId } = c.var.caller;
    const first = await findSummary(db, appId, id);
    if (!first) throw notFound('notification');
    // Nginx collects answers unless told not to.
    c.header('X-Accel-Buffering', 'no');
    const find = () => findSummary(db, appId, id);
    return streamSSE(c, (stream) => follow(stream, first, find, progressIntervalMs, stopping)) as never;
  });
}

async function follow(
  stream: SSEStreamingApi,
  first: NotificationSummary,
  find: () => Promise<NotificationSummary | undefined>,
  intervalMs: number,
  stopping: AbortSignal | undefined,
): Promise<void> {
  let current: NotificationSummary | undefined = first;
  let said = '';
  let saidAt = performance.now();
  while (current && !stream.aborted && !stopping?.aborted) {
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
    await sleep(intervalMs, stream, stopping);
    // The database may be away for a moment: the stream waits for it instead of ending.
    current = await find().catch(() => current);
  }
}

function describe(notification: NotificationSummary): string {
  const { state, halt, finishedAt } = notification;
  const books = fromBooks(notification.books);
  return JSON.stringify({ id: notification.id, state, halt, books, finished_at: finishedAt });
}

/** Ends early when the client goes or the process is asked to stop. */
function sleep(ms: number, stream: SSEStreamingApi, stopping: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      stopping?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    stopping?.addEventListener('abort', done);
    stream.onAbort(done);
  });
}
