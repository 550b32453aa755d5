import { createRoute, z } from '@hono/zod-openapi';
import { listDeviceDeliveries } from '../../db/deliveries.ts';
import { findDevice } from '../../db/devices.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { externalId } from '../devices/schemas.ts';
import { notFound } from '../http/api-error.ts';
import { limitInQuery, notificationCursor } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter } from '../http/router.ts';
import { deliveryPageSchema, fromDelivery } from './schemas.ts';

/** Probed in one request: some milliseconds a thousand. */
const notificationsPerPage = 5_000;

const historyRoute = createRoute({
  method: 'get',
  path: '/v1/devices/{external_id}/notifications',
  tags: ['Devices'],
  summary: 'What a device was sent',
  description:
    'One request looks at 5 000 notifications of the app at most, so a page may be shorter than `limit`, or empty, and still have a `next_cursor`: older notifications are on the next.',
  request: {
    params: z.object({ external_id: externalId }),
    query: z.strictObject({ cursor: notificationCursor, limit: limitInQuery(500, 100) }),
  },
  responses: {
    200: { description: 'Newest first.', content: { 'application/json': { schema: deliveryPageSchema } } },
    ...problems(404),
  },
});

export function deviceDeliveries({ db }: ApiDependencies) {
  return createRouter().openapi(historyRoute, async (c) => {
    const { appId } = c.var.caller;
    const device = await findDevice(db, appId, c.req.valid('param').external_id);
    if (!device) throw notFound('device');
    const { cursor: from, limit } = c.req.valid('query');
    const page = { cursor: from, limit, notifications: notificationsPerPage };
    const { deliveries, cursor } = await listDeviceDeliveries(db, appId, device.id, page);
    return c.json({ deliveries: deliveries.map(fromDelivery), next_cursor: cursor }, 200);
  });
}
