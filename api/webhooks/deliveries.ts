import { z } from '@hono/zod-openapi';
import { recordChange } from '../../db/audit-entries.ts';
import { inTransaction } from '../../db/transaction.ts';
import { listDeliveries, replayDeliveries, replayDelivery } from '../../db/webhook-deliveries.ts';
import { findWebhook } from '../../db/webhooks.ts';
import { webhookDeliveryStates } from '../../domain/webhook.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { limitInQuery, readPage, uuidCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import {
  checkedId,
  fromDelivery,
  replayedSchema,
  replaySchema,
  webhookDeliveryPageSchema,
  webhookDeliveryParams,
  webhookDeliverySchema,
  webhookParams,
} from './schemas.ts';

/** Of one request. */
const replaysAtOnce = 10_000;
const tags = ['Webhooks'];
const scope = 'webhooks:write';

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/webhooks/{id}/deliveries',
  scope,
  tags,
  summary: 'List what a webhook was told, and how that ended, newest first',
  request: {
    params: webhookParams,
    query: z.strictObject({
      cursor: uuidCursor,
      limit: limitInQuery(100, 20),
      state: z.enum(webhookDeliveryStates).optional(),
    }),
  },
  responses: {
    200: { description: 'A page.', content: { 'application/json': { schema: webhookDeliveryPageSchema } } },
    ...problems(),
  },
});

const replayOneRoute = defineRoute({
  method: 'post',
  path: '/v1/webhooks/{id}/deliveries/{event}/replay',
  scope,
  tags,
  summary: 'Deliver an event to a webhook again',
  description: 'Under the same id, whatever became of it before; within some seconds. A repeat is harmless.',
  request: { params: webhookDeliveryParams },
  responses: {
    202: { description: 'It is pending.', content: { 'application/json': { schema: webhookDeliverySchema } } },
    ...problems(),
  },
});

const replayRoute = defineRoute({
  method: 'post',
  path: '/v1/webhooks/{id}/replay',
  scope,
  tags,
  summary: 'Deliver events of a time to a webhook again',
  description: `Those that failed, or those in another state, oldest first; ${replaysAtOnce} with one request.`,
  request: {
    params: webhookParams,
    body: { required: true, content: { 'application/json': { schema: replaySchema } } },
  },
  responses: {
    202: { description: 'They are pending.', content: { 'application/json': { schema: replayedSchema } } },
    ...problems(...bodyProblems),
  },
});

export function webhookDeliveries({ db }: ApiDependencies) {
  async function checkedWebhookId(appId: number, id: string): Promise<string> {
    if (!(await findWebhook(db, appId, checkedId(id, 'webhook')))) throw notFound('webhook');
    return id;
  }

  return createRouter()
    .openapi(listRoute, async (c) => {
      const { cursor, limit, state } = c.req.valid('query');
      const id = await checkedWebhookId(c.var.app.id, c.req.valid('param').id);
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listDeliveries(db, c.var.app.id, id, { state }, { cursor, limit }),
        ({ eventId }) => eventId,
      );
      return c.json({ deliveries: items.map(fromDelivery), next_cursor }, 200);
    })
    .openapi(replayOneRoute, async (c) => {
      const { id, event } = c.req.valid('param');
      const appId = c.var.app.id;
      const webhookId = await checkedWebhookId(appId, id);
      const eventId = checkedId(event, 'delivery');
      const delivery = await inTransaction(db, async (trx) => {
        if (!(await replayDelivery(trx, appId, webhookId, eventId))) throw notFound('delivery');
        await recordChange(trx, c.var.actor, {
          ...{ appId, action: 'webhook.replay', target: { kind: 'webhook', id: webhookId } },
          changes: { event_id: eventId },
        });
        return (await listDeliveries(trx, appId, webhookId, { eventId }, { limit: 1 }))[0]!;
      });
      return c.json(fromDelivery(delivery), 202);
    })
    .openapi(replayRoute, async (c) => {
      const { since, until, state, cursor } = c.req.valid('json');
      const appId = c.var.app.id;
      const webhookId = await checkedWebhookId(appId, c.req.valid('param').id);
      const replayed = await inTransaction(db, async (trx) => {
        const ids = await replayDeliveries(trx, appId, webhookId, {
          ...{ state, cursor, since: new Date(since), limit: replaysAtOnce },
          until: until === undefined ? undefined : new Date(until),
        });
        if (ids.length > 0) {
          await recordChange(trx, c.var.actor, {
            ...{ appId, action: 'webhook.replay', target: { kind: 'webhook', id: webhookId } },
            changes: { state, since, until: until ?? null, events: ids.length },
          });
        }
        return ids;
      });
      const next_cursor = replayed.length === replaysAtOnce ? replayed.at(-1)! : null;
      return c.json({ replayed: replayed.length, next_cursor }, 202);
    });
}
