import { createRoute, z } from '@hono/zod-openapi';
import { listDeviceDeliveries } from '../db/deliveries.ts';
import { findDevice } from '../db/devices.ts';
import type { ApiDependencies } from './dependencies.ts';
import { notFound } from './problems.ts';
import { createRouter } from './router.ts';
import { pageLimit } from './schemas/common.ts';
import { deliverySchema, fromDelivery } from './schemas/delivery.ts';
import { externalId } from './schemas/device.ts';
import { problems } from './schemas/problem.ts';

const historyRoute = createRoute({
  method: 'get',
  path: '/v1/devices/{external_id}/notifications',
  tags: ['Devices'],
  summary: 'What a device was sent',
  description:
    'Looks into the newest notifications of the app, as many as `limit` says, and shows those that reached this device.',
  request: { params: z.object({ external_id: externalId }), query: z.strictObject({ limit: pageLimit(500, 100) }) },
  responses: {
    200: {
      description: 'Newest first.',
      content: {
        'application/json': { schema: z.object({ deliveries: z.array(deliverySchema) }).openapi('DeviceHistory') },
      },
    },
    ...problems(404, 422),
  },
});

export function deviceNotifications({ db }: ApiDependencies) {
  return createRouter().openapi(historyRoute, async (c) => {
    const { appId } = c.var.caller;
    const device = await findDevice(db, appId, c.req.valid('param').external_id);
    if (!device) throw notFound('device');
    const found = await listDeviceDeliveries(db, appId, device.id, { notifications: c.req.valid('query').limit });
    return c.json({ deliveries: found.map(fromDelivery) }, 200);
  });
}
