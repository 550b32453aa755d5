import { z } from '@hono/zod-openapi';
import { deviceRegistrar } from '../../db/device-registration.ts';
import { changeProperties, deleteDevice, findDevice, listDevices } from '../../db/devices.ts';
import { inTransaction } from '../../db/transaction.ts';
import { audienceExample, audienceSchema } from '../audiences/schemas.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { invalidField, notFound } from '../http/api-error.ts';
import { requireBody } from '../http/json-body.ts';
import { limitProblem } from '../http/json-object.ts';
import { limitInBody, readPage, rowCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { type DeviceLimit, limitReached } from './device-limit.ts';
import {
  devicePageSchema,
  deviceRegistrationSchema,
  deviceSchema,
  externalId,
  fromDevice,
  propertyChangesSchema,
  propertyLimits,
  registeredDeviceSchema,
  toRegistration,
} from './schemas.ts';

const tags = ['Devices'];
const params = z.object({ external_id: externalId });
const registeredDevice = { content: { 'application/json': { schema: registeredDeviceSchema } } };
const oneDevice = { content: { 'application/json': { schema: deviceSchema } } };

const putRoute = defineRoute({
  method: 'put',
  path: '/v1/devices/{external_id}',
  scope: 'devices:write',
  tags,
  summary: 'Register a device, or register it again',
  description:
    'Replaces the registration; only properties stay when they are left out. The token belongs to the last device that registered it: the device that had it before is retired as token_moved.',
  request: {
    params,
    body: { required: true, content: { 'application/json': { schema: deviceRegistrationSchema } } },
  },
  responses: {
    200: { description: 'Registered again.', ...registeredDevice },
    201: { description: 'Registered for the first time.', ...registeredDevice },
    ...problems(409, ...bodyProblems),
  },
});

const getRoute = defineRoute({
  method: 'get',
  path: '/v1/devices/{external_id}',
  scope: 'devices:read',
  tags,
  summary: 'Show a device',
  request: { params },
  responses: { 200: { description: 'The device.', ...oneDevice }, ...problems(404) },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/devices/{external_id}',
  scope: 'devices:write',
  tags,
  summary: 'Forget a device',
  description: 'What is being sent skips it from now on. Its deliveries stay in the books, without its external id.',
  request: { params },
  responses: { 204: { description: 'Deleted.' }, ...problems(404) },
});

const patchPropertiesRoute = defineRoute({
  method: 'patch',
  path: '/v1/devices/{external_id}/properties',
  scope: 'devices:write',
  middleware: [requireBody] as const,
  tags,
  summary: 'Set and remove properties',
  request: {
    params,
    body: { required: true, content: { 'application/json': { schema: propertyChangesSchema } } },
  },
  responses: { 200: { description: 'The device as it is now.', ...oneDevice }, ...problems(404, ...bodyProblems) },
});

const searchRoute = defineRoute({
  method: 'post',
  path: '/v1/devices/search',
  scope: 'devices:read',
  middleware: [requireBody] as const,
  tags,
  summary: 'Find devices',
  request: {
    body: {
      required: true,
      content: {
        'application/json': {
          schema: z
            .strictObject({
              ...audienceSchema.shape,
              live: z
                .boolean()
                .optional()
                .openapi({ description: 'True: only devices that can be sent to; false: only the others.' }),
              cursor: rowCursor,
              limit: limitInBody(1_000, 100),
            })
            .openapi('DeviceSearch', { example: { ...audienceExample, live: true, limit: 10 } }),
        },
      },
    },
  },
  responses: {
    200: { description: 'A page, oldest first.', content: { 'application/json': { schema: devicePageSchema } } },
    ...problems(...bodyProblems),
  },
});

export function devices({ db, pool }: ApiDependencies, limit: DeviceLimit) {
  const register = deviceRegistrar({ db, pool });
  return createRouter()
    .openapi(putRoute, async (c) => {
      const { registration, warnings } = toRegistration(c.req.valid('param').external_id, c.req.valid('json'));
      const { app } = c.var;
      const refused = await limit.findRefused(app, [registration.externalId]);
      if (refused.size > 0) throw limitReached(app);
      const { device, isNew } = await register(app.id, registration);
      return c.json({ ...fromDevice(device), ...(warnings.length > 0 && { warnings }) }, isNew ? 201 : 200);
    })
    .openapi(getRoute, async (c) => {
      const device = await findDevice(db, c.var.app.id, c.req.valid('param').external_id);
      if (!device) throw notFound('device');
      return c.json(fromDevice(device), 200);
    })
    .openapi(deleteRoute, async (c) => {
      const wasThere = await deleteDevice(db, c.var.app.id, c.req.valid('param').external_id);
      if (!wasThere) throw notFound('device');
      return c.body(null, 204);
    })
    .openapi(patchPropertiesRoute, async (c) => {
      const entries = Object.entries(c.req.valid('json'));
      const change = {
        set: Object.fromEntries(entries.filter(([, value]) => value !== null)),
        remove: entries.filter(([, value]) => value === null).map(([key]) => key),
      };
      const device = await inTransaction(db, async (trx) => {
        const changed = await changeProperties(trx, c.var.app.id, c.req.valid('param').external_id, change);
        const beyond = changed && limitProblem(changed.properties, propertyLimits);
        if (beyond !== undefined) throw invalidField('', `The properties after this change: ${beyond}`);
        return changed;
      });
      if (!device) throw notFound('device');
      return c.json(fromDevice(device), 200);
    })
    .openapi(searchRoute, async (c) => {
      const {
        condition,
        external_ids: externalIds,
        user_ids: userIds,
        live: isLive,
        cursor,
        limit,
      } = c.req.valid('json');
      const search = { condition, externalIds, userIds, isLive };
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listDevices(db, c.var.app.id, search, { cursor, limit }),
        (device) => String(device.id),
      );
      return c.json({ devices: items.map(fromDevice), next_cursor }, 200);
    });
}
