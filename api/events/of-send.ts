import { z } from '@hono/zod-openapi';
import { listEventCounts, listEventHours } from '../../db/event-counts.ts';
import { messageReader } from '../../db/messages.ts';
import { findSummary } from '../../db/notifications.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { count } from '../http/counts.ts';
import { answeredInstant } from '../http/instant.ts';
import { hourCursor, limitInQuery, nextCursor, readPage } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { checkedMessageId, messageParams } from '../messages/schemas.ts';
import { checkedId, notificationParams } from '../notifications/schemas.ts';

const countShape = {
  type: z.string(),
  events: count.openapi({ description: 'Each telling.' }),
  devices: count.openapi({ description: 'Each device once.' }),
};

const countsSchema = z
  .object({
    types: z.array(z.object(countShape).openapi('EventCount')),
    hours: z
      .array(z.object({ hour: answeredInstant, ...countShape }).openapi('EventHour'))
      .optional()
      .openapi({
        description:
          'With by=hour: a page in order of hour and type. A device counts in the hour of what it told first.',
      }),
    next_cursor: nextCursor.optional(),
  })
  .openapi('SendEvents');

const query = z.strictObject({
  by: z.enum(['hour']).optional(),
  cursor: hourCursor,
  limit: limitInQuery(1_000, 500),
});

const answered = {
  200: { description: 'The counts.', content: { 'application/json': { schema: countsSchema } } },
  ...problems(404),
};

const notificationRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications/{id}/events',
  scope: 'notifications:read',
  tags: ['Events'],
  summary: 'Count what devices told of a notification',
  request: { params: notificationParams, query },
  responses: answered,
});

const messageRoute = defineRoute({
  method: 'get',
  path: '/v1/messages/{id}/events',
  scope: 'messages:read',
  tags: ['Events'],
  summary: 'Count what devices told of a message',
  request: { params: messageParams, query },
  responses: answered,
});

export function eventsOfSend({ db, pool }: ApiDependencies) {
  const findMessage = messageReader(pool);

  async function read(appId: number, sendId: string, { by, cursor, limit }: z.infer<typeof query>) {
    const types = await listEventCounts(db, appId, sendId);
    if (by === undefined) return { types };
    const { items, next_cursor } = await readPage(
      limit,
      (limit) => listEventHours(db, appId, sendId, { cursor, limit }),
      ({ hour, type }) => `${hour.getTime()}-${type}`,
    );
    return {
      types,
      hours: items.map(({ hour, ...counted }) => ({ hour: hour.toISOString(), ...counted })),
      next_cursor,
    };
  }

  return createRouter()
    .openapi(notificationRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      if (!(await findSummary(db, c.var.app.id, id))) throw notFound('notification');
      return c.json(await read(c.var.app.id, id, c.req.valid('query')), 200);
    })
    .openapi(messageRoute, async (c) => {
      const id = checkedMessageId(c.req.valid('param').id);
      if (!(await findMessage(c.var.app.id, id))) throw notFound('message');
      return c.json(await read(c.var.app.id, id, c.req.valid('query')), 200);
    });
}
