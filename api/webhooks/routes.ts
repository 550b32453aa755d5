import { z } from '@hono/zod-openapi';
import type { Transaction } from 'kysely';
import { recordChange } from '../../db/audit-entries.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import {
  deleteWebhook,
  disableWebhook,
  enableWebhook,
  feedTest,
  findWebhook,
  insertWebhook,
  listWebhooks,
  lockWebhook,
  rotateSecret,
  updateWebhook,
  type Webhook,
} from '../../db/webhooks.ts';
import type { Actor } from '../../domain/actor.ts';
import type { JsonObject } from '../../domain/json.ts';
import { keepApp } from '../access/keep-app.ts';
import { differences } from '../audit/differences.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, notFound } from '../http/api-error.ts';
import { requireBody } from '../http/json-body.ts';
import { noMasterKey } from '../http/no-master-key.ts';
import { limitInQuery, readPage, uuidCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { checkAddress, type WebhookNetwork } from './check-address.ts';
import {
  checkedId,
  defaultOverlapSeconds,
  fromWebhook,
  madeWebhookSchema,
  newWebhookSchema,
  secretRotationSchema,
  webhookChangeSchema,
  webhookPageSchema,
  webhookParams,
  webhookSchema,
} from './schemas.ts';

const maxWebhooks = 20;
const tags = ['Webhooks'];
const scope = 'webhooks:write';
const oneWebhook = { content: { 'application/json': { schema: webhookSchema } } };
const madeWebhook = { content: { 'application/json': { schema: madeWebhookSchema } } };

const createRoute = defineRoute({
  method: 'post',
  path: '/v1/webhooks',
  scope,
  tags,
  summary: 'Make a webhook',
  description: `Requests follow the scheme of Standard Webhooks: a body {type, timestamp, data}, signed by the secret that is in this answer and nowhere else. Each event comes at least once, those of one subject in order; a 2xx within 15 s takes it, anything else is tried again over three days. An app has ${maxWebhooks} at most.`,
  request: { body: { required: true, content: { 'application/json': { schema: newWebhookSchema } } } },
  responses: { 201: { description: 'Made.', ...madeWebhook }, ...problems(409, ...bodyProblems) },
});

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/webhooks',
  scope,
  tags,
  summary: 'List webhooks, newest first',
  request: { query: z.strictObject({ cursor: uuidCursor, limit: limitInQuery(100, 20) }) },
  responses: {
    200: { description: 'A page.', content: { 'application/json': { schema: webhookPageSchema } } },
    ...problems(),
  },
});

const getRoute = defineRoute({
  method: 'get',
  path: '/v1/webhooks/{id}',
  scope,
  tags,
  summary: 'Show a webhook',
  request: { params: webhookParams },
  responses: { 200: { description: 'The webhook.', ...oneWebhook }, ...problems() },
});

const patchRoute = defineRoute({
  method: 'patch',
  path: '/v1/webhooks/{id}',
  scope,
  middleware: [requireBody] as const,
  tags,
  summary: 'Change, disable or enable a webhook',
  description: 'What is left out stays. Workers follow within seconds.',
  request: {
    params: webhookParams,
    body: { required: true, content: { 'application/json': { schema: webhookChangeSchema } } },
  },
  responses: { 200: { description: 'The webhook as it is now.', ...oneWebhook }, ...problems(...bodyProblems) },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/webhooks/{id}',
  scope,
  tags,
  summary: 'Delete a webhook',
  description: 'Nothing is sent to it any more, also not what waits. A repeat answers 404.',
  request: { params: webhookParams },
  responses: { 204: { description: 'Deleted.' }, ...problems() },
});

const rotateRoute = defineRoute({
  method: 'post',
  path: '/v1/webhooks/{id}/rotate-secret',
  scope,
  tags,
  summary: 'Replace the secret of a webhook',
  description:
    'Requests are signed by both for overlap_seconds, so that a receiver that knows either takes them. Of three only the last two sign.',
  request: {
    params: webhookParams,
    body: { content: { 'application/json': { schema: secretRotationSchema } } },
  },
  responses: { 201: { description: 'With the other secret.', ...madeWebhook }, ...problems(409, ...bodyProblems) },
});

const testRoute = defineRoute({
  method: 'post',
  path: '/v1/webhooks/{id}/test',
  scope,
  tags,
  summary: 'Send a test event to a webhook',
  description: 'Of the type webhook.test, within a second or two; what became of it is in its deliveries.',
  request: { params: webhookParams },
  responses: { 202: { description: 'It is on its way.' }, ...problems(409) },
});

export function webhooks(deps: ApiDependencies) {
  const { db, masterKeys } = deps;
  const network: WebhookNetwork = deps.webhooks ?? { places: { allowedNetworks: [] } };
  return createRouter()
    .openapi(createRoute, async (c) => {
      if (masterKeys === undefined) throw noMasterKey();
      const { url, types, filter = {} } = c.req.valid('json');
      await checkAddress(url, network);
      const made = await inTransaction(db, async (trx) => {
        const appId = await keepApp(trx, c.var.app.name);
        const settings = { url: new URL(url).href, types: [...new Set(types)], filter };
        return insertWebhook(trx, c.var.actor, appId, settings, masterKeys, maxWebhooks);
      });
      if (made === undefined) {
        throw new ApiError(409, 'too_many_webhooks', `The app has ${maxWebhooks} webhooks: delete one first.`);
      }
      return c.json({ ...fromWebhook(made.webhook), secret: made.secret }, 201);
    })
    .openapi(listRoute, async (c) => {
      const { cursor, limit } = c.req.valid('query');
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listWebhooks(db, c.var.app.id, { cursor, limit }),
        ({ id }) => id,
      );
      return c.json({ webhooks: items.map(fromWebhook), next_cursor }, 200);
    })
    .openapi(getRoute, async (c) => {
      const webhook = await findWebhook(db, c.var.app.id, checkedId(c.req.valid('param').id, 'webhook'));
      if (webhook === undefined) throw notFound('webhook');
      return c.json(fromWebhook(webhook), 200);
    })
    .openapi(patchRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id, 'webhook');
      const change = c.req.valid('json');
      if (Object.values(change).every((value) => value === undefined)) {
        throw new ApiError(422, 'invalid_input', 'Name at least one field to change.', { field: '' });
      }
      if (change.url !== undefined) await checkAddress(change.url, network);
      const webhook = await inTransaction(db, (trx) => changeWebhook(trx, c.var.actor, c.var.app.id, id, change));
      return c.json(fromWebhook(webhook), 200);
    })
    .openapi(deleteRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id, 'webhook');
      const isThere = await inTransaction(db, (trx) => deleteWebhook(trx, c.var.actor, c.var.app.id, id));
      if (!isThere) throw notFound('webhook');
      return c.body(null, 204);
    })
    .openapi(rotateRoute, async (c) => {
      if (masterKeys === undefined) throw noMasterKey();
      const id = checkedId(c.req.valid('param').id, 'webhook');
      const { overlap_seconds: overlapSeconds = defaultOverlapSeconds } = c.req.valid('json');
      const appId = c.var.app.id;
      const rotated = await inTransaction(db, async (trx) => {
        if (!(await lockWebhook(trx, appId, id))) throw notFound('webhook');
        const secret = await rotateSecret(trx, c.var.actor, appId, id, masterKeys, overlapSeconds);
        return { ...fromWebhook((await findWebhook(trx, appId, id))!), secret };
      });
      return c.json(rotated, 201);
    })
    .openapi(testRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id, 'webhook');
      const webhook = await findWebhook(db, c.var.app.id, id);
      if (webhook === undefined) throw notFound('webhook');
      if (webhook.disabledAt !== undefined) {
        throw new ApiError(409, 'webhook_disabled', 'The webhook is disabled: enable it first.');
      }
      await feedTest(db, c.var.app.id, id);
      return c.body(null, 202);
    });
}

/** @throws {ApiError} 404 */
async function changeWebhook(
  trx: Transaction<Database>,
  actor: Actor,
  appId: number,
  id: string,
  { url, types, filter, state }: z.infer<typeof webhookChangeSchema>,
): Promise<Webhook> {
  const before = await lockWebhook(trx, appId, id);
  if (before === undefined) throw notFound('webhook');
  await updateWebhook(trx, appId, id, {
    ...(url !== undefined && { url: new URL(url).href }),
    ...(types !== undefined && { types: [...new Set(types)] }),
    ...(filter !== undefined && { filter: filter ?? {} }),
  });
  if (state === 'enabled' && before.disabledAt !== undefined) await enableWebhook(trx, actor, appId, id);
  if (state === 'disabled') await disableWebhook(trx, actor, appId, id, 'by_caller');
  const after = (await findWebhook(trx, appId, id))!;
  const changes = differences(audited(before), audited(after), ['url']);
  if (Object.keys(changes).length > 0) {
    await recordChange(trx, actor, { appId, action: 'webhook.update', target: { kind: 'webhook', id }, changes });
  }
  return after;
}

/** Of a URL only its host is told: its path may hold what is secret. */
function audited({ url, types, filter }: Webhook): JsonObject {
  return { host: new URL(url).host, url, types, filter: filter as JsonObject };
}
