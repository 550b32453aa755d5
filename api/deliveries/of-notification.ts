import { z } from '@hono/zod-openapi';
import { type Delivery, type DeliveryCursor, listDeliveries } from '../../db/deliveries.ts';
import { findSummary } from '../../db/notifications.ts';
import { outcomes } from '../../domain/outcome.ts';
import type { TakePlace } from '../access/places.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { answerListing, formatInQuery, type Listing, listingContent, streamRule } from '../http/listing.ts';
import { deliveryCursor, limitInQuery } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { checkedId, notificationParams } from '../notifications/schemas.ts';
import { deliveryPageSchema, deliverySchema, fromDelivery } from './schemas.ts';

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications/{id}/deliveries',
  scope: 'notifications:read',
  tags: ['Notifications'],
  summary: 'List what became of each device',
  description: streamRule,
  request: {
    params: notificationParams,
    query: z.strictObject({
      cursor: deliveryCursor,
      limit: limitInQuery(1_000, 100),
      outcome: z.enum(outcomes).optional(),
      reason: z.string().min(1).max(200).optional(),
      format: formatInQuery,
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream, in order of batch and position.',
      content: listingContent(deliveryPageSchema, deliverySchema.shape, 'DeliveryLine'),
    },
    ...problems(404),
  },
});

/** A batch is unfolded again for each query. */
const linesPerQuery = 10_000;

export function notificationDeliveries({ db, stopping }: ApiDependencies, takePlace: TakePlace) {
  return createRouter().openapi(listRoute, async (c) => {
    const id = checkedId(c.req.valid('param').id);
    const { outcome, reason, ...asked } = c.req.valid('query');
    const { id: appId } = c.var.app;
    if (!(await findSummary(db, appId, id))) throw notFound('notification');
    const deliveries = {
      read: (page) => listDeliveries(db, appId, id, { outcome, reason }, page),
      cursorAfter: ({ batchSeq, position }) => ({ batchSeq, position }),
      writeCursor: ({ batchSeq, position }) => `${batchSeq}-${position}`,
      toLine: fromDelivery,
      columns: Object.keys(deliverySchema.shape),
      linesPerQuery,
    } satisfies Listing<Delivery, DeliveryCursor, ReturnType<typeof fromDelivery>>;
    return answerListing(c, asked, deliveries, { take: () => takePlace(appId), stopping }, (lines, next_cursor) =>
      c.json({ deliveries: lines, next_cursor }, 200),
    );
  });
}
