import { z } from '@hono/zod-openapi';
import { findDelivery } from '../../db/deliveries.ts';
import { listDeviceHistory } from '../../db/device-history.ts';
import { findDevice } from '../../db/devices.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { externalId } from '../devices/schemas.ts';
import { notFound } from '../http/api-error.ts';
import { limitInQuery, uuidCursor } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { checkedId, notificationParams } from '../notifications/schemas.ts';
import { deliverySchema, fromDelivery, fromHistoryLine, historyPageSchema } from './schemas.ts';

/** Looked through in one request: a tenth to half a second, where the device is in the range of them all. */
const notificationsPerPage = 2_000;

const historyRoute = defineRoute({
  method: 'get',
  path: '/v1/devices/{external_id}/notifications',
  scope: 'notifications:read',
  tags: ['Devices'],
  summary: 'What a device was sent',
  description:
    'Notifications and messages that have their outcome. One request looks at 2 000 notifications of the app at most, so a page may be shorter than `limit`, or empty, and still have a `next_cursor`: older ones are on the next.',
  request: {
    params: z.object({ external_id: externalId }),
    query: z.strictObject({ cursor: uuidCursor, limit: limitInQuery(500, 100) }),
  },
  responses: {
    200: { description: 'Newest first.', content: { 'application/json': { schema: historyPageSchema } } },
    ...problems(404),
  },
});

const oneRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications/{id}/deliveries/{external_id}',
  scope: 'notifications:read',
  tags: ['Notifications'],
  summary: 'What became of one device',
  description: '404 also while the device has no outcome yet, and where it is not in the audience.',
  request: { params: notificationParams.extend({ external_id: externalId }) },
  responses: {
    200: { description: 'How it ended.', content: { 'application/json': { schema: deliverySchema } } },
    ...problems(404),
  },
});

export function deviceDeliveries({ db }: ApiDependencies) {
  const router = createRouter();
  router.openapi(oneRoute, async (c) => {
    const { id: appId } = c.var.app;
    const { id, external_id } = c.req.valid('param');
    const device = await findDevice(db, appId, external_id);
    if (!device) throw notFound('device');
    const delivery = await findDelivery(db, appId, checkedId(id), device.id);
    if (!delivery) throw notFound('delivery');
    return c.json(fromDelivery(delivery), 200);
  });
  return router.openapi(historyRoute, async (c) => {
    const { id: appId } = c.var.app;
    const device = await findDevice(db, appId, c.req.valid('param').external_id);
    if (!device) throw notFound('device');
    const { cursor: from, limit } = c.req.valid('query');
    const page = { cursor: from, limit, notifications: notificationsPerPage };
    const { lines, cursor } = await listDeviceHistory(db, appId, device.id, page);
    return c.json({ deliveries: lines.map(fromHistoryLine), next_cursor: cursor }, 200);
  });
}
