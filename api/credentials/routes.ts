import { z } from '@hono/zod-openapi';
import { listCredentials, revokeCredential, storeCredential } from '../../db/credentials.ts';
import { inTransaction } from '../../db/transaction.ts';
import { appParams } from '../access/app-params.ts';
import { keepApp } from '../access/keep-app.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { noMasterKey } from '../http/no-master-key.ts';
import { limitInQuery, readPage, uuidCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { readCredential } from './read-credential.ts';
import {
  checkedCredentialId,
  credentialPageSchema,
  credentialParams,
  credentialSchema,
  fromCredential,
  newCredentialSchema,
} from './schemas.ts';

const tags = ['Credentials'];
const oneCredential = { content: { 'application/json': { schema: credentialSchema } } };

const storeRoute = defineRoute({
  method: 'post',
  path: '/v1/apps/{app}/credentials',
  scope: 'credentials:write',
  tags,
  summary: 'Store a credential of an app',
  description:
    'It is proven by a signature, sealed, and used from now on: workers follow within seconds. The former one is kept until it is revoked, and used again where this one is.',
  request: {
    params: appParams,
    query: z.strictObject({
      verify: z.enum(['provider']).optional().openapi({
        description:
          'Ask the provider too, by a request that sends nothing. Where it refuses, or cannot be reached, nothing is stored.',
      }),
    }),
    body: { required: true, content: { 'application/json': { schema: newCredentialSchema } } },
  },
  responses: {
    200: { description: 'It was stored already.', ...oneCredential },
    201: { description: 'Stored.', ...oneCredential },
    ...problems(409, ...bodyProblems),
  },
});

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/apps/{app}/credentials',
  scope: 'credentials:write',
  tags,
  summary: 'List the credentials of an app, newest first',
  description: 'Also those that are revoked, and none with its secret.',
  request: { params: appParams, query: z.strictObject({ cursor: uuidCursor, limit: limitInQuery(100, 20) }) },
  responses: {
    200: { description: 'A page.', content: { 'application/json': { schema: credentialPageSchema } } },
    ...problems(),
  },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/apps/{app}/credentials/{id}',
  scope: 'credentials:write',
  tags,
  summary: 'Revoke a credential',
  description: 'Workers stop using it within seconds, and its secret is deleted. A repeat is harmless.',
  request: { params: credentialParams },
  responses: { 204: { description: 'Revoked.' }, ...problems() },
});

export function credentials(deps: ApiDependencies) {
  const { db, masterKeys } = deps;
  const now = () => deps.now?.() ?? new Date();
  return createRouter()
    .openapi(storeRoute, async (c) => {
      if (masterKeys === undefined) throw noMasterKey(', or name the credential by files');
      const isVerified = c.req.valid('query').verify === 'provider';
      const read = await readCredential(deps, c.var.app.id, c.req.valid('json'), isVerified, c.var.log);
      const { credential, isNew } = await inTransaction(db, async (trx) =>
        storeCredential(trx, c.var.actor, await keepApp(trx, c.var.app.name), read, masterKeys),
      );
      return c.json(fromCredential(credential, now()), isNew ? 201 : 200);
    })
    .openapi(listRoute, async (c) => {
      const { cursor, limit } = c.req.valid('query');
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listCredentials(db, c.var.app.id, { cursor, limit }),
        ({ id }) => id,
      );
      return c.json({ credentials: items.map((one) => fromCredential(one, now())), next_cursor }, 200);
    })
    .openapi(deleteRoute, async (c) => {
      const id = checkedCredentialId(c.req.valid('param').id);
      const isThere = await inTransaction(db, (trx) => revokeCredential(trx, c.var.actor, c.var.app.id, id));
      if (!isThere) throw notFound('credential');
      return c.body(null, 204);
    });
}
