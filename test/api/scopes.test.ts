/** What a key may do: every route of the OpenAPI document is tried, so that none can be left out. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createRouter, defineRoute } from '../../api/http/router.ts';
import { insertApiKey } from '../../db/api-keys.ts';
import { createMasterKeys } from '../../db/master-keys.ts';
import { appScopes, type Scope, scopes } from '../../domain/scopes.ts';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

interface Operation {
  method: string;
  path: string;
  /** Undefined: open to everyone. */
  scope: Scope | undefined;
  hasAppHeader: boolean;
}

const unknownId = '019c0000-0000-7000-8000-00000000abcd';

let api: TestApi;
let operations: Operation[];
before(async () => {
  api = await createTestApi({ masterKeys: createMasterKeys([{ id: 'test', key: new Uint8Array(32) }]) });
  operations = await readDocument();
});
after(() => api.close());

async function readDocument(): Promise<Operation[]> {
  // biome-ignore lint/suspicious/noExplicitAny: an OpenAPI document.
  const { paths } = (await (await api.app.request('/openapi.json')).json()) as any;
  return Object.entries<Record<string, { security?: { bearer: Scope[] }[]; parameters?: { name: string }[] }>>(
    paths,
  ).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { security = [], parameters = [] }]) => {
      assert.ok(security.length <= 1 && (security[0]?.bearer.length ?? 1) === 1, `${method} ${path} names one scope`);
      const hasAppHeader = parameters.some(({ name }) => name === 'Carillon-App');
      return { method: method.toUpperCase(), path, scope: security[0]?.bearer[0], hasAppHeader };
    }),
  );
}

const newKey = (appId: number | null, scopes: readonly Scope[]) =>
  insertApiKey(api.database.db, { appId, name: 'k', scopes });
const ask = (key: string, method: string, path: string, body?: unknown, headers = {}): Promise<Answer> =>
  api.request(method, path, body, { authorization: `Bearer ${key}`, ...headers });

/** With a body that no route takes: whoever is let in changes nothing. */
function attempt(key: string, { method, path }: Operation, app: string): Promise<Answer> {
  const url = path
    .replace('{app}', app)
    .replace('{id}', unknownId)
    .replaceAll(/\{\w+\}/g, 'none');
  return ask(key, method, url, ['GET', 'DELETE'].includes(method) ? undefined : 'no JSON');
}

async function addApp(name: string): Promise<number> {
  return (await api.database.pool.query('insert into apps (name) values ($1) returning id', [name])).rows[0].id;
}

test('a route without a scope, or with one that there is not, does not compile', () => {
  const router = createRouter();
  const answer = { responses: { 204: { description: 'Nothing.' } } };
  const neverCalled = () => {
    // @ts-expect-error it names no scope
    router.openapi({ method: 'get', path: '/v1/x', ...answer }, (c) => c.body(null, 204));
    // @ts-expect-error there is no such scope
    defineRoute({ method: 'get', path: '/v1/x', scope: 'devices:all', ...answer });
    // @ts-expect-error only open routes and administrators' have no app
    router.openapi({ method: 'get', path: '/v1/x', scope: 'admin', ...answer }, (c) => c.body(c.var.app.name, 204));
  };
  assert.equal(typeof neverCalled, 'function');
});

test('every route under /v1 names one scope, and no other route asks for a key', () => {
  const served = new Set(
    api.app.routes
      .filter(({ method, path }) => !['ALL', 'OPTIONS'].includes(method) && path.startsWith('/v1/'))
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`),
  );
  const scoped = operations.filter(({ scope }) => scope !== undefined).map(({ method, path }) => `${method} ${path}`);
  assert.deepEqual(scoped.sort(), [...served].sort());
  assert.deepEqual(
    [...new Set(operations.map(({ scope }) => scope))].filter(
      (scope) => scope !== undefined && !scopes.includes(scope),
    ),
    [],
  );
});

test('reading, writing, sending and stopping are told apart', () => {
  const isOfApp = ({ path }: Operation) => !/^\/v1\/(apps|audit)/.test(path);
  for (const { method, path, scope } of operations.filter((operation) => operation.scope && !isOfApp(operation))) {
    assert.equal(scope, path.includes('/credentials') ? 'credentials:write' : 'admin', `${method} ${path}`);
  }
  const routesOf = (scope: Scope) => {
    const own = operations.filter((operation) => operation.scope === scope && isOfApp(operation));
    return own.map(({ method, path }) => `${method} ${path.slice('/v1'.length)}`).sort();
  };
  assert.deepEqual(Object.fromEntries(appScopes.map((scope) => [scope, routesOf(scope)])), {
    'devices:read': ['GET /devices', 'GET /devices/{external_id}', 'POST /audience/estimate', 'POST /devices/search'],
    'devices:write': [
      'DELETE /devices/{external_id}',
      'PATCH /devices/{external_id}/properties',
      'POST /devices/import',
      'PUT /devices/{external_id}',
    ],
    'notifications:read': [
      'GET /devices/{external_id}/notifications',
      'GET /notifications',
      'GET /notifications/{id}',
      'GET /notifications/{id}/deliveries',
      'GET /notifications/{id}/deliveries/{external_id}',
      'GET /notifications/{id}/events',
      'GET /notifications/{id}/progress',
    ],
    'notifications:write': [
      'DELETE /notifications/{id}',
      'PATCH /notifications/{id}',
      'POST /notifications',
      'PUT /notifications/{id}/audience-list',
    ],
    'notifications:send': ['POST /notifications/{id}/launch', 'POST /notifications/{id}/resume'],
    'notifications:stop': [
      'POST /notifications/{id}/cancel',
      'POST /notifications/{id}/pause',
      'POST /notifications/{id}/unschedule',
    ],
    'messages:read': [
      'GET /messages',
      'GET /messages/deliveries',
      'GET /messages/stats',
      'GET /messages/{id}',
      'GET /messages/{id}/events',
    ],
    'messages:send': ['DELETE /messages/{id}', 'POST /messages', 'POST /messages/resume'],
    'credentials:write': [],
    'webhooks:write': [
      'DELETE /webhooks/{id}',
      'GET /webhooks',
      'GET /webhooks/{id}',
      'GET /webhooks/{id}/deliveries',
      'PATCH /webhooks/{id}',
      'POST /webhooks',
      'POST /webhooks/{id}/deliveries/{event}/replay',
      'POST /webhooks/{id}/replay',
      'POST /webhooks/{id}/rotate-secret',
      'POST /webhooks/{id}/test',
    ],
    'events:write': ['POST /events'],
  });
});

test('each route lets in its own scope, and refuses every other and none by the name of the missing one', async () => {
  const appId = await addApp('scoped');
  const holders = [
    ...(await Promise.all(appScopes.map(async (scope) => ({ scope, key: await newKey(appId, [scope]) })))),
    { scope: 'admin', key: await newKey(null, ['admin']) },
    { scope: undefined, key: await newKey(appId, []) },
  ];
  const tried = { refused: 0, letIn: 0 };
  for (const operation of operations.filter(({ scope }) => scope !== undefined)) {
    for (const { scope, key } of holders) {
      const name = `${operation.method} ${operation.path} with ${scope ?? 'none'}`;
      // Administrators get as far as an app that is not there.
      const { status, body, headers } = await attempt(key, operation, scope === 'admin' ? 'nowhere' : 'scoped');
      if (scope === operation.scope) {
        tried.letIn++;
        assert.ok(status !== 401 && status !== 403, `${name}: ${status}`);
      } else {
        tried.refused++;
        assert.deepEqual([status, body.code, body.scope], [403, 'scope_missing', operation.scope], name);
        const challenge = headers.get('www-authenticate') ?? '';
        assert.match(challenge, new RegExp(`error="insufficient_scope", scope="${operation.scope}"`), name);
      }
    }
  }
  const scoped = operations.filter(({ scope }) => scope !== undefined).length;
  assert.ok(scoped >= 30, `${scoped} routes`);
  assert.deepEqual(tried, { letIn: scoped, refused: scoped * scopes.length });
});

test('the scope is asked for before anything of the body is read', async () => {
  const key = await newKey(1, ['devices:read']);
  const writing = operations.filter(({ method, scope }) => !['GET', 'DELETE'].includes(method) && scope);
  for (const { method, path, scope } of writing.filter(({ scope }) => scope !== 'devices:read')) {
    let pulls = 0;
    const body = new ReadableStream({ pull: () => void pulls++ }, { highWaterMark: 0 });
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
    const url = path.replace('{app}', 'default').replaceAll(/\{\w+\}/g, unknownId);
    const answer = await api.app.request(url, { method, headers, body, duplex: 'half' } as RequestInit);
    assert.deepEqual([answer.status, pulls], [403, 0], `${method} ${path} (${scope})`);
  }
  assert.ok(writing.length >= 15, `${writing.length}`);
});

test('what belongs to another app is not there: 404 on every route that names a thing or an app', async () => {
  const own = await newKey(1, appScopes);
  const stranger = await newKey(await addApp('stranger'), appScopes);
  const device = { platform: 'ios', device_token: apnsToken(1) };
  assert.equal((await ask(own, 'PUT', '/v1/devices/theirs', device)).status, 201);
  const notification = { message: { title: 't' }, audience: { uploaded: true } };
  const notificationId = (await ask(own, 'POST', '/v1/notifications', notification)).body.id;
  const message = { message: { title: 't' }, to: { external_id: 'theirs' } };
  const messageId = (await ask(own, 'POST', '/v1/messages', message)).body.id;
  const webhook = { url: 'https://shop.example/hook', types: ['notification.finished'] };
  const webhookId = (await ask(own, 'POST', '/v1/webhooks', webhook)).body.id;
  const idOf = (path: string) => {
    if (path.startsWith('/v1/webhooks/')) return webhookId;
    return path.startsWith('/v1/messages/') ? messageId : notificationId;
  };

  const bodies: Record<string, unknown> = {
    'PATCH /v1/devices/{external_id}/properties': { city: 'Kyoto' },
    'PATCH /v1/notifications/{id}': { title: 'mine' },
    'PATCH /v1/webhooks/{id}': { state: 'disabled' },
    'POST /v1/webhooks/{id}/replay': { since: '2020-01-01T00:00:00Z' },
  };
  const naming = operations.filter(({ path, scope }) => path.includes('{') && scope !== 'admin');
  // The same id is another device to another app.
  const foreign = naming.filter(({ method, path }) => `${method} ${path}` !== 'PUT /v1/devices/{external_id}');
  for (const { method, path } of foreign) {
    const name = `${method} ${path}`;
    const url = path
      .replace('{app}', 'default')
      .replace('{external_id}', 'theirs')
      .replace('{id}', idOf(path))
      .replaceAll(/\{\w+\}/g, 'none');
    const isList = path.endsWith('/audience-list');
    const answer = await ask(stranger, method, url, isList ? '' : bodies[name], {
      ...(isList && { 'content-type': 'application/x-ndjson' }),
    });
    assert.deepEqual([answer.status, answer.body.code], [404, 'not_found'], name);
  }
  assert.ok(foreign.length >= 15, `${foreign.length}`);

  assert.equal((await ask(stranger, 'PUT', '/v1/devices/theirs', { platform: 'android' })).status, 201);
  assert.equal((await ask(own, 'GET', '/v1/devices/theirs')).body.platform, 'ios');
  assert.equal((await ask(own, 'GET', `/v1/notifications/${notificationId}`)).body.state, 'draft');
  assert.deepEqual((await ask(stranger, 'GET', '/v1/notifications')).body.notifications, []);
});

describe("an administrator's request", () => {
  const all = (appId: number | null) => newKey(appId, appId === null ? scopes : appScopes);
  const list = (key: string, app?: string) =>
    ask(key, 'GET', '/v1/notifications', undefined, app === undefined ? {} : { 'carillon-app': app });

  test('names its app by header; every route of the document says so where it takes one', async () => {
    await addApp('named');
    const admin = await all(null);
    assert.equal((await list(admin, 'named')).status, 200);
    const without = await list(admin);
    assert.deepEqual([without.status, without.body.code, without.body.field], [400, 'app_required', 'Carillon-App']);
    const unknown = await list(admin, 'nowhere');
    assert.deepEqual([unknown.status, unknown.body.field], [404, 'Carillon-App']);
    for (const operation of operations.filter(({ scope }) => scope !== undefined)) {
      const { body } = await attempt(admin, operation, 'nowhere');
      assert.equal(body?.code === 'app_required', operation.hasAppHeader, `${operation.method} ${operation.path}`);
    }
  });

  test('a device that it registers belongs to the app that it named', async () => {
    await addApp('receiver');
    const admin = await all(null);
    const device = { platform: 'ios', device_token: apnsToken(77) };
    await ask(admin, 'PUT', '/v1/devices/by-admin', device, { 'carillon-app': 'receiver' });
    const statuses = ['receiver', 'default'].map(async (app) => {
      return (await ask(admin, 'GET', '/v1/devices/by-admin', undefined, { 'carillon-app': app })).status;
    });
    assert.deepEqual(await Promise.all(statuses), [200, 404]);
  });

  test('a key of an app may name its own, and no other is there', async () => {
    const key = await all(await addApp('own'));
    assert.deepEqual([(await list(key, 'own')).status, (await list(key, 'default')).status], [200, 404]);
  });

  test('to an app that is being deleted is refused', async () => {
    const id = await addApp('leaving');
    const deletion = { requestedAt: new Date().toISOString(), devices: 0, notifications: 0, messages: 0 };
    await api.database.pool.query('update apps set deletion = $1 where id = $2', [JSON.stringify(deletion), id]);
    const { status, body } = await list(await all(null), 'leaving');
    assert.deepEqual([status, body.code], [409, 'app_deleting']);
  });
});

describe('sending needs notifications:send, by whatever route', () => {
  const notification = { message: { title: 't' }, audience: {} };
  const later = () => new Date(Date.now() + 3_600_000).toISOString();
  const refusal = ({ status, body }: Answer) => [status, body.scope];
  const missing = [403, 'notifications:send'];
  let drafter: string;
  let sender: string;
  let stopper: string;
  before(async () => {
    const appId = await addApp('sending');
    drafter = await newKey(appId, ['notifications:read', 'notifications:write']);
    sender = await newKey(appId, appScopes);
    stopper = await newKey(appId, ['notifications:stop']);
  });

  test('a notification that is to be sent or scheduled is not stored without it', async () => {
    for (const due of [{ launch: true }, { scheduled_at: later() }]) {
      const body = { ...notification, ...due };
      assert.deepEqual(refusal(await ask(drafter, 'POST', '/v1/notifications', body)), missing);
    }
    assert.deepEqual((await ask(drafter, 'GET', '/v1/notifications')).body.notifications, []);
    assert.equal((await ask(drafter, 'POST', '/v1/notifications', notification)).status, 201, 'a draft is');
    assert.equal((await ask(drafter, 'POST', '/v1/notifications', { ...notification, launch: false })).status, 201);
    assert.equal((await ask(sender, 'POST', '/v1/notifications', { ...notification, launch: true })).status, 201);
  });

  test('the rate of a draft is a matter of writing; rate and time of what was launched are not', async () => {
    const { body } = await ask(drafter, 'POST', '/v1/notifications', notification);
    const path = `/v1/notifications/${body.id}`;
    assert.equal((await ask(drafter, 'PATCH', path, { rate_per_second: 10, title: 'Sale' })).status, 200);
    assert.equal((await ask(drafter, 'PATCH', path, { rate_per_second: 20 })).status, 200);
    await ask(sender, 'POST', `${path}/launch`, { scheduled_at: later() });
    for (const change of [{ rate_per_second: 30 }, { scheduled_at: later() }]) {
      assert.deepEqual(refusal(await ask(drafter, 'PATCH', path, change)), missing);
    }
    assert.equal((await ask(drafter, 'GET', path)).body.rate_per_second, 20);
    assert.equal((await ask(sender, 'PATCH', path, { rate_per_second: 30 })).status, 200);
  });

  test('who may only stop can pause and cannot resume', async () => {
    const { body } = await ask(sender, 'POST', '/v1/notifications', { ...notification, launch: true });
    const path = `/v1/notifications/${body.id}`;
    assert.equal((await ask(stopper, 'POST', `${path}/pause`)).status, 200);
    assert.deepEqual(refusal(await ask(stopper, 'POST', `${path}/resume`)), missing);
    assert.equal((await ask(stopper, 'POST', `${path}/cancel`)).status, 202);
  });
});
