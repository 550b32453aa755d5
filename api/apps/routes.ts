import { z } from '@hono/zod-openapi';
import { findAppOfAnyApp, insertApp, listAllApps, lockAppByName, updateApp } from '../../db/apps.ts';
import { recordChange } from '../../db/audit-entries.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Actor } from '../../domain/actor.ts';
import type { App } from '../../domain/app.ts';
import { appParams } from '../access/app-params.ts';
import { refuseDeleted } from '../access/enter-route.ts';
import { differences } from '../audit/differences.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';
import { requireBody } from '../http/json-body.ts';
import { limitInQuery, readPage, rowCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { requestDeletion } from './deletion.ts';
import {
  type AppChangeBody,
  appChangeSchema,
  appPageSchema,
  appSchema,
  fromApp,
  fromSettings,
  newAppSchema,
  toSettings,
} from './schemas.ts';

const tags = ['Apps'];
const oneApp = { content: { 'application/json': { schema: appSchema } } };
const scope = 'admin';

const createAppRoute = defineRoute({
  method: 'post',
  path: '/v1/apps',
  scope,
  tags,
  summary: 'Create an app',
  request: { body: { required: true, content: { 'application/json': { schema: newAppSchema } } } },
  responses: {
    201: {
      description: 'Created.',
      headers: { Location: { schema: { type: 'string' as const }, required: true, description: 'Its path.' } },
      ...oneApp,
    },
    ...problems(409, ...bodyProblems),
  },
});

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/apps',
  scope,
  tags,
  summary: 'List apps, oldest first',
  request: { query: z.strictObject({ cursor: rowCursor, limit: limitInQuery(100, 20) }) },
  responses: {
    200: { description: 'A page.', content: { 'application/json': { schema: appPageSchema } } },
    ...problems(),
  },
});

const getRoute = defineRoute({
  method: 'get',
  path: '/v1/apps/{app}',
  scope,
  tags,
  summary: 'Show an app',
  description: 'While it is being deleted: how far that is.',
  request: { params: appParams },
  responses: { 200: { description: 'The app.', ...oneApp }, ...problems(404) },
});

const patchRoute = defineRoute({
  method: 'patch',
  path: '/v1/apps/{app}',
  scope,
  middleware: [requireBody] as const,
  tags,
  summary: 'Change the settings of an app',
  description:
    'What is left out stays, null clears a field. Workers follow a change of topic, environment or project within five seconds, rates with the next window, defaults are those of requests ten seconds later at most.',
  request: {
    params: appParams,
    body: { required: true, content: { 'application/json': { schema: appChangeSchema } } },
  },
  responses: { 200: { description: 'The app as it is now.', ...oneApp }, ...problems(404, 409, ...bodyProblems) },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/apps/{app}',
  scope,
  tags,
  summary: 'Delete an app',
  description:
    'With all that it has: devices, sends with their books, messages, keys, credentials. Refused where there is any of the first three, unless confirm names the app. Its keys and credentials are revoked at once, what is under way is cancelled, then rows are deleted in the background; GET shows how far it is, and 404 in the end. A repeat is harmless. The app default cannot be deleted.',
  request: {
    params: appParams,
    query: z.strictObject({
      confirm: z.string().max(63).optional().openapi({ description: 'The name of the app.', example: 'shop' }),
    }),
  },
  responses: { 202: { description: 'It is being deleted.', ...oneApp }, ...problems(404, 409) },
});

export function apps(deps: ApiDependencies) {
  const { db } = deps;
  return createRouter()
    .openapi(createAppRoute, async (c) => {
      const { name, ...settings } = c.req.valid('json');
      checkTopics(settings.apns_topic ?? undefined, settings.apns_topics ?? []);
      const app = await inTransaction(db, async (trx) => {
        const inserted = await insertApp(trx, name, toSettings(settings));
        if (!inserted) throw new ApiError(409, 'app_exists', `There is an app ${name} already.`, { field: 'name' });
        await recordChange(trx, c.var.actor, {
          ...{ appId: inserted.id, action: 'app.create', target: { kind: 'app', id: name } },
          changes: fromSettings(inserted),
        });
        return inserted;
      });
      c.header('Location', `/v1/apps/${name}`);
      return c.json(fromApp(app), 201);
    })
    .openapi(listRoute, async (c) => {
      const { cursor, limit } = c.req.valid('query');
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listAllApps(db, { cursor, limit }),
        ({ id }) => String(id),
      );
      return c.json({ apps: items.map(fromApp), next_cursor }, 200);
    })
    .openapi(getRoute, async (c) => {
      const app = await findAppOfAnyApp(db, c.var.app.id);
      if (!app) throw notFound('app');
      return c.json(fromApp(app), 200);
    })
    .openapi(patchRoute, async (c) => {
      const app = await changeApp(deps, c.var.actor, c.var.app.name, c.req.valid('json'));
      return c.json(fromApp(app), 200);
    })
    .openapi(deleteRoute, async (c) => {
      const app = await requestDeletion(deps, c.var.actor, c.var.app.name, c.req.valid('query').confirm);
      return c.json(fromApp(app), 202);
    });
}

/** @throws {ApiError} 404; 409 app_deleting; 422 */
export function changeApp({ db }: ApiDependencies, actor: Actor, name: string, body: AppChangeBody): Promise<App> {
  if (Object.values(body).every((value) => value === undefined)) {
    throw new ApiError(422, 'invalid_input', 'Name at least one field to change.', { field: '' });
  }
  return inTransaction(db, async (trx) => {
    const before = await lockAppByName(trx, name);
    if (!before) throw notFound('app');
    refuseDeleted(before);
    const after = await updateApp(trx, before.id, toSettings(body));
    checkTopics(after.apnsTopic, after.apnsTopics);
    const changes = differences(fromSettings(before), fromSettings(after));
    if (Object.keys(changes).length > 0) {
      const target = { kind: 'app', id: name };
      await recordChange(trx, actor, { appId: before.id, action: 'app.update', target, changes });
    }
    return after;
  });
}

function checkTopics(topic: string | undefined, furtherTopics: string[]): void {
  if (topic === undefined && furtherTopics.length > 0) {
    throw invalidField('apns_topics', 'An app without apns_topic takes any topic: give it one first.');
  }
}
