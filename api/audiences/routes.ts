import { z } from '@hono/zod-openapi';
import { countAudience } from '../../db/audience-size.ts';
import { platforms, providerNames } from '../../domain/device.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { count, countsBy } from '../http/counts.ts';
import { requireBody } from '../http/json-body.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { audienceSchema, fromListed, listedSchema, toAudience } from './schemas.ts';

const estimateRoute = defineRoute({
  method: 'post',
  path: '/v1/audience/estimate',
  scope: 'devices:read',
  middleware: [requireBody] as const,
  tags: ['Audience'],
  summary: 'Count the devices of an audience',
  description: 'Live devices at this moment; the audience of a notification is frozen when it is launched.',
  request: { body: { required: true, content: { 'application/json': { schema: audienceSchema } } } },
  responses: {
    200: {
      description: 'The count.',
      content: {
        'application/json': {
          schema: z
            .object({
              devices: count,
              by_provider: countsBy(providerNames),
              by_platform: countsBy(platforms),
              listed: listedSchema.optional(),
            })
            .openapi('AudienceSize'),
        },
      },
    },
    ...problems(...bodyProblems),
  },
});

export function audiences({ db }: ApiDependencies) {
  return createRouter().openapi(estimateRoute, async (c) => {
    const size = await countAudience(db, c.var.app.id, toAudience(c.req.valid('json')));
    const { devices, byProvider, byPlatform, listed } = size;
    return c.json(
      { devices, by_provider: byProvider, by_platform: byPlatform, ...(listed && { listed: fromListed(listed) }) },
      200,
    );
  });
}
