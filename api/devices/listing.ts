import { z } from '@hono/zod-openapi';
import { recordChange } from '../../db/audit-entries.ts';
import { type Device, listAllDevices } from '../../db/devices.ts';
import type { TakePlace } from '../access/places.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { answerListing, formatInQuery, type Listing, listingContent, streamRule } from '../http/listing.ts';
import { limitInQuery, nextCursor, rowCursor } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { deviceSchema, fromDevice } from './schemas.ts';

const { device_token, ...withoutToken } = deviceSchema.shape;
const lineShape = { ...withoutToken, device_token: device_token.optional() };
const lineSchema = z.object(lineShape).openapi('ListedDevice');

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/devices',
  scope: 'devices:read',
  tags: ['Devices'],
  summary: 'List all devices',
  description: `${streamRule} Devices that are registered meanwhile come at the end. Device tokens only where they are asked for, which the audit tells.`,
  request: {
    query: z.strictObject({
      cursor: rowCursor,
      limit: limitInQuery(1_000, 100),
      live: z
        .enum(['true', 'false'])
        .optional()
        .openapi({ description: 'true: only devices that can be sent to; false: only the others.' }),
      include: z.enum(['device_token']).optional(),
      format: formatInQuery,
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream, oldest first.',
      content: listingContent(
        z.object({ devices: z.array(lineSchema), next_cursor: nextCursor }).openapi('ListedDevicePage'),
        lineShape,
        'DeviceLine',
      ),
    },
    ...problems(),
  },
});

/** A device may have 16 KB of properties. */
const linesPerQuery = 2_000;

export function deviceListing({ db, stopping }: ApiDependencies, takePlace: TakePlace) {
  return createRouter().openapi(listRoute, async (c) => {
    const { live, include, ...asked } = c.req.valid('query');
    const { app, actor } = c.var;
    const isLive = live && live === 'true';
    const hasTokens = include === 'device_token';
    if (hasTokens) {
      const target = { kind: 'app', id: app.name };
      await recordChange(db, actor, { appId: app.id, action: 'devices.read_tokens', target });
    }
    const devices = {
      read: (page) => listAllDevices(db, app.id, { isLive }, page),
      cursorAfter: ({ id }) => id,
      toLine: hasTokens ? fromDevice : fromDeviceWithoutToken,
      columns: Object.keys(hasTokens ? deviceSchema.shape : withoutToken),
      linesPerQuery,
    } satisfies Listing<Device, number, z.infer<typeof lineSchema>>;
    return answerListing(c, asked, devices, { take: () => takePlace(app.id), stopping }, (lines, next_cursor) =>
      c.json({ devices: lines, next_cursor }, 200),
    );
  });
}

function fromDeviceWithoutToken(device: Device): z.infer<typeof lineSchema> {
  const { device_token: _, ...line } = fromDevice(device);
  return line;
}
