import { z } from '@hono/zod-openapi';
import { createApiKey, listApiKeys, revokeApiKey, rotateApiKey } from '../../db/api-keys.ts';
import { databaseNow } from '../../db/clock.ts';
import { inTransaction } from '../../db/transaction.ts';
import { appParams } from '../access/app-params.ts';
import { keepApp } from '../access/keep-app.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';
import { limitInQuery, readPage, uuidCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import {
  checkedKeyId,
  defaultOverlapSeconds,
  fromApiKey,
  keyPageSchema,
  keyParams,
  madeKeySchema,
  newKeySchema,
  rotationSchema,
} from './schemas.ts';

const tags = ['Keys'];
const madeKey = { content: { 'application/json': { schema: madeKeySchema } } };

const createKeyRoute = defineRoute({
  method: 'post',
  path: '/v1/apps/{app}/keys',
  scope: 'admin',
  tags,
  summary: 'Make a key of an app',
  description: 'The key is in this answer and nowhere else: only its hash is stored.',
  request: { params: appParams, body: { required: true, content: { 'application/json': { schema: newKeySchema } } } },
  responses: { 201: { description: 'Made.', ...madeKey }, ...problems(...bodyProblems) },
});

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/apps/{app}/keys',
  scope: 'admin',
  tags,
  summary: 'List the keys of an app, newest first',
  description: 'Also those that are revoked or have expired, and none with the key itself.',
  request: { params: appParams, query: z.strictObject({ cursor: uuidCursor, limit: limitInQuery(100, 20) }) },
  responses: {
    200: { description: 'A page.', content: { 'application/json': { schema: keyPageSchema } } },
    ...problems(),
  },
});

const rotateRoute = defineRoute({
  method: 'post',
  path: '/v1/apps/{app}/keys/{id}/rotate',
  scope: 'admin',
  tags,
  summary: 'Replace a key',
  description:
    'Makes another of the same name and scopes that lives as long, and lets the one before it live on for overlap_seconds at most, so that nobody is refused meanwhile.',
  request: { params: keyParams, body: { content: { 'application/json': { schema: rotationSchema } } } },
  responses: { 201: { description: 'The other key.', ...madeKey }, ...problems(...bodyProblems) },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/apps/{app}/keys/{id}',
  scope: 'admin',
  tags,
  summary: 'Revoke a key',
  description: 'Every process of the API refuses it within ten seconds. A repeat is harmless.',
  request: { params: keyParams },
  responses: { 204: { description: 'Revoked.' }, ...problems() },
});

/** Of apps alone: keys of administrators are made where the database is at hand. */
export function keys({ db, now }: ApiDependencies) {
  return createRouter()
    .openapi(createKeyRoute, async (c) => {
      const { name, scopes, expires_at, requests_per_second: requestsPerSecond } = c.req.valid('json');
      const { key, plainKey } = await inTransaction(db, async (trx) => {
        const appId = await keepApp(trx, c.var.app.name);
        const expiresAt = expires_at === undefined ? undefined : new Date(expires_at);
        if (expiresAt && expiresAt <= (now?.() ?? (await databaseNow(trx)))) {
          throw invalidField('expires_at', 'Is in the past.');
        }
        return createApiKey(trx, c.var.actor, {
          appId,
          name,
          scopes: [...new Set(scopes)],
          expiresAt,
          requestsPerSecond,
        });
      });
      return c.json({ ...fromApiKey(key), key: plainKey }, 201);
    })
    .openapi(listRoute, async (c) => {
      const { cursor, limit } = c.req.valid('query');
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listApiKeys(db, c.var.app.id, { cursor, limit }),
        ({ id }) => id,
      );
      return c.json({ keys: items.map(fromApiKey), next_cursor }, 200);
    })
    .openapi(rotateRoute, async (c) => {
      const id = checkedKeyId(c.req.valid('param').id);
      const { overlap_seconds: overlapSeconds = defaultOverlapSeconds } = c.req.valid('json');
      const rotated = await inTransaction(db, async (trx) =>
        rotateApiKey(trx, c.var.actor, await keepApp(trx, c.var.app.name), id, overlapSeconds),
      );
      if (rotated.kind === 'unknown') throw notFound('key');
      if (rotated.kind === 'ended') {
        throw new ApiError(409, 'key_ended', 'The key is revoked or has expired: make another.');
      }
      return c.json({ ...fromApiKey(rotated.key), key: rotated.plainKey }, 201);
    })
    .openapi(deleteRoute, async (c) => {
      const id = checkedKeyId(c.req.valid('param').id);
      const isThere = await inTransaction(db, (trx) => revokeApiKey(trx, c.var.actor, c.var.app.id, id));
      if (!isThere) throw notFound('key');
      return c.body(null, 204);
    });
}
