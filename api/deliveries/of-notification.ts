import { z } from '@hono/zod-openapi';
import { listDeliveries } from '../../db/deliveries.ts';
import { findSummary } from '../../db/notifications.ts';
import { outcomes } from '../../domain/outcome.ts';
import type { TakePlace } from '../access/places.ts';
import { whileValid } from '../access/while-valid.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { toByteStream } from '../http/byte-stream.ts';
import { ndjsonMediaType } from '../http/ndjson.ts';
import { deliveryCursor, limitInQuery, readPage } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { checkedId, notificationParams } from '../notifications/schemas.ts';
import { deliveryPageSchema, deliverySchema, fromDelivery } from './schemas.ts';
import { streamDeliveries } from './stream.ts';

const formats = ['json', 'ndjson', 'csv'] as const;
type Format = (typeof formats)[number];

const streamTypes = { ndjson: ndjsonMediaType, csv: 'text/csv; charset=utf-8' };

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications/{id}/deliveries',
  scope: 'notifications:read',
  tags: ['Notifications'],
  summary: 'List what became of each device',
  description:
    'Pages as JSON. As NDJSON or CSV (by Accept or by format) all of them in one stream, from the cursor on; cursor and limit of a page do not apply to its length.',
  request: {
    params: notificationParams,
    query: z.strictObject({
      cursor: deliveryCursor,
      limit: limitInQuery(1_000, 100),
      outcome: z.enum(outcomes).optional(),
      reason: z.string().min(1).max(200).optional(),
      format: z.enum(formats).optional(),
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream.',
      content: {
        'application/json': { schema: deliveryPageSchema },
        'application/x-ndjson': { schema: deliverySchema },
        'text/csv': { schema: z.string() },
      },
    },
    ...problems(404),
  },
});

export function notificationDeliveries({ db, stopping }: ApiDependencies, takePlace: TakePlace) {
  return createRouter().openapi(listRoute, async (c) => {
    const id = checkedId(c.req.valid('param').id);
    const { limit, format = acceptedFormat(c.req.header('accept')), cursor, outcome, reason } = c.req.valid('query');
    const { id: appId } = c.var.app;
    if (!(await findSummary(db, appId, id))) throw notFound('notification');
    if (format === 'json') {
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listDeliveries(db, appId, id, { outcome, reason }, { cursor, limit }),
        ({ batchSeq, position }) => `${batchSeq}-${position}`,
      );
      return c.json({ deliveries: items.map(fromDelivery), next_cursor }, 200);
    }
    const lines = streamDeliveries(db, appId, id, { format, cursor, outcome, reason }, stopping);
    return c.body(toByteStream(whileValid(lines, c.var.isStillValid), takePlace(appId)), 200, {
      'Content-Type': streamTypes[format],
    }) as never;
  });
}

function acceptedFormat(accept = ''): Format {
  if (/application\/(x-)?ndjson|application\/jsonl/i.test(accept)) return 'ndjson';
  return /text\/csv/i.test(accept) ? 'csv' : 'json';
}
