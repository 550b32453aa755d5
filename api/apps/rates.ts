import { z } from '@hono/zod-openapi';
import { findAppOfAnyApp } from '../../db/apps.ts';
import { byProvider, providerNames } from '../../domain/device.ts';
import { appParams } from '../access/app-params.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { changeApp } from './routes.ts';
import { rateParams, ratePerSecond } from './schemas.ts';

const tags = ['Apps'];
const rateSchema = z.strictObject({ per_second: ratePerSecond }).openapi('Rate', { example: { per_second: 5_000 } });

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/apps/{app}/rates',
  scope: 'admin',
  tags,
  summary: 'Show how fast an app may send',
  request: { params: appParams },
  responses: {
    200: {
      description: 'By provider.',
      content: { 'application/json': { schema: z.object(byProvider(() => rateSchema)).openapi('Rates') } },
    },
    ...problems(404),
  },
});

const putRoute = defineRoute({
  method: 'put',
  path: '/v1/apps/{app}/rates/{provider}',
  scope: 'admin',
  tags,
  summary: 'Say how fast an app may send',
  description: 'Obeyed at once, also by what is being sent: each window reads it.',
  request: {
    params: rateParams,
    body: { required: true, content: { 'application/json': { schema: rateSchema } } },
  },
  responses: {
    200: { description: 'The rate as it is now.', content: { 'application/json': { schema: rateSchema } } },
    ...problems(404, 409, ...bodyProblems),
  },
});

export function rates(deps: ApiDependencies) {
  return createRouter()
    .openapi(listRoute, async (c) => {
      const app = await findAppOfAnyApp(deps.db, c.var.app.id);
      if (!app) throw notFound('app');
      const of = Object.fromEntries(providerNames.map((name) => [name, { per_second: app.rates[name] }]));
      return c.json(of as Record<(typeof providerNames)[number], z.infer<typeof rateSchema>>, 200);
    })
    .openapi(putRoute, async (c) => {
      const { provider } = c.req.valid('param');
      const change = { rates: { [provider]: c.req.valid('json').per_second } };
      const app = await changeApp(deps, c.var.actor, c.var.app.name, change);
      return c.json({ per_second: app.rates[provider] }, 200);
    });
}
