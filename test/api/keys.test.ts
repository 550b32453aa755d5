import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createApp } from '../../api/app.ts';
import { insertApiKey } from '../../db/api-keys.ts';
import { appScopes } from '../../domain/scopes.ts';
import { until } from '../support/until.ts';
import { createTestApi, type TestApi } from './harness.ts';

describe('keys of an app', () => {
  let api: TestApi;
  let admin: string;
  let shopId: number;
  before(async () => {
    api = await createTestApi({ keyCacheTtlMs: 0 });
    admin = await insertApiKey(api.database.db, { appId: null, name: 'operator', scopes: ['admin'] });
    const { rows } = await api.database.pool.query("insert into apps (name) values ('shop') returning id");
    shopId = rows[0].id;
  });
  after(() => api.close());

  const ask = (key: string, method: string, path: string, body?: unknown) =>
    api.request(method, path, body, { authorization: `Bearer ${key}` });
  const asAdmin = (method: string, path: string, body?: unknown) => ask(admin, method, path, body);
  const make = (body: object) =>
    asAdmin('POST', '/v1/apps/shop/keys', { name: 'k', scopes: ['devices:read'], ...body });
  const listed = async (id: string) => {
    const { body } = await asAdmin('GET', '/v1/apps/shop/keys?limit=100');
    return body.keys.find((key: { id: string }) => key.id === id);
  };
  const statusWith = async (key: string) => (await ask(key, 'GET', '/v1/devices/none')).status;
  const audited = async (id: string) => {
    const sql = 'select action, actor_kind, app_name, changes from audit_entries where target_id = $1 order by id';
    return (await api.database.pool.query(sql, [id])).rows;
  };

  test('a key is told once, works within its app, and the listing shows all but the key', async () => {
    const made = await make({ name: 'backend', scopes: ['devices:read', 'devices:read'], requests_per_second: 50 });
    assert.equal(made.status, 201);
    const { key, ...rest } = made.body;
    assert.match(key, /^ck_[\w-]{43}$/);
    assert.deepEqual([rest.name, rest.scopes, rest.requests_per_second], ['backend', ['devices:read'], 50]);
    assert.equal(await statusWith(key), 404, 'it may ask, and there is no such device');
    const found = await listed(rest.id);
    assert.ok(found.last_used_at);
    assert.deepEqual({ ...found, last_used_at: null }, rest);
    const { rows } = await api.database.pool.query('select app_id from api_keys where id = $1', [rest.id]);
    assert.deepEqual(rows, [{ app_id: shopId }]);
    assert.deepEqual(await audited(rest.id), [
      {
        ...{ action: 'key.create', actor_kind: 'key', app_name: 'shop' },
        changes: { name: 'backend', scopes: ['devices:read'], expires_at: null, requests_per_second: 50 },
      },
    ]);
  });

  test('what is wrong is refused by its field', async () => {
    const faults: [object, string][] = [
      [{ scopes: [] }, 'scopes'],
      [{ scopes: ['*'] }, 'scopes[0]'],
      [{ scopes: ['devices:read', 'admin'] }, 'scopes[1]'],
      [{ name: '' }, 'name'],
      [{ expires_at: '2020-01-01T00:00:00Z' }, 'expires_at'],
      [{ expires_at: 'tomorrow' }, 'expires_at'],
      [{ requests_per_second: 0 }, 'requests_per_second'],
      [{ app: 'other' }, 'app'],
    ];
    for (const [body, field] of faults) {
      const { status, body: problem } = await make(body);
      assert.deepEqual([status, problem.field], [422, field]);
    }
    assert.equal((await asAdmin('POST', '/v1/apps/nowhere/keys', { name: 'k', scopes: ['devices:read'] })).status, 404);
  });

  test('the listing goes by cursor, newest first, and shows no key of another app', async () => {
    for (const name of ['page-1', 'page-2', 'page-3']) await make({ name });
    const names: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await asAdmin('GET', `/v1/apps/shop/keys?limit=2${cursor && `&cursor=${cursor}`}`);
      assert.ok(body.keys.length <= 2);
      names.push(...body.keys.map((key: { name: string }) => key.name));
      cursor = body.next_cursor;
    }
    assert.deepEqual(
      names.filter((name) => name.startsWith('page-')),
      ['page-3', 'page-2', 'page-1'],
    );
    assert.ok(!names.includes('test'), 'the key of app default');
  });

  test('a revoked key is refused; a repeat is harmless and is recorded once', async () => {
    const { key, id } = (await make({})).body;
    assert.equal(await statusWith(key), 404);
    for (let time = 0; time < 2; time++)
      assert.equal((await asAdmin('DELETE', `/v1/apps/shop/keys/${id}`)).status, 204);
    assert.equal(await statusWith(key), 401);
    assert.ok((await listed(id)).revoked_at);
    assert.deepEqual(
      (await audited(id)).map(({ action }) => action),
      ['key.create', 'key.revoke'],
    );
  });

  test("another app's key is not there", async () => {
    const { id } = (await make({})).body;
    for (const path of [`/v1/apps/default/keys/${id}`, '/v1/apps/shop/keys/no-uuid']) {
      assert.equal((await asAdmin('DELETE', path)).status, 404);
      assert.equal((await asAdmin('POST', `${path}/rotate`)).status, 404);
    }
    assert.equal((await listed(id)).revoked_at, null);
  });

  test('rotation makes a key that may do the same, and both work until the first one expires', async () => {
    const before = (await make({ scopes: ['devices:read', 'messages:send'], requests_per_second: 9 })).body;
    const { status, body } = await asAdmin('POST', `/v1/apps/shop/keys/${before.id}/rotate`, { overlap_seconds: 60 });
    assert.equal(status, 201);
    assert.notEqual(body.key, before.key);
    assert.deepEqual(
      [body.name, body.scopes, body.requests_per_second, body.expires_at],
      [before.name, before.scopes, 9, null],
    );
    for (const key of [before.key, body.key]) assert.equal(await statusWith(key), 404);
    const leftMs = Date.parse((await listed(before.id)).expires_at) - Date.now();
    assert.ok(leftMs > 0 && leftMs <= 60_000, `${leftMs}`);
    const [, entry] = await audited(before.id);
    assert.deepEqual([entry.action, entry.changes.replaced_by], ['key.rotate', body.id]);
    await api.database.pool.query("update api_keys set expires_at = now() - interval '1 ms' where id = $1", [
      before.id,
    ]);
    assert.deepEqual([await statusWith(before.key), await statusWith(body.key)], [401, 404]);
  });

  test('without a body the one before it lives on for a day, but never longer than it would have', async () => {
    const unlimited = (await make({})).body;
    await asAdmin('POST', `/v1/apps/shop/keys/${unlimited.id}/rotate`);
    const leftMs = Date.parse((await listed(unlimited.id)).expires_at) - Date.now();
    assert.ok(Math.abs(leftMs - 86_400_000) < 60_000, `${leftMs}`);

    const expires_at = new Date(Date.now() + 3_600_000).toISOString();
    const limited = (await make({ expires_at })).body;
    const { body } = await asAdmin('POST', `/v1/apps/shop/keys/${limited.id}/rotate`);
    assert.equal((await listed(limited.id)).expires_at, expires_at);
    const lives = Date.parse(body.expires_at) - Date.parse(body.created_at);
    assert.ok(Math.abs(lives - 3_600_000) < 60_000, `the other one lives as long: ${lives}`);
  });

  test('what has ended cannot be rotated', async () => {
    const { id } = (await make({})).body;
    await asAdmin('DELETE', `/v1/apps/shop/keys/${id}`);
    const { status, body } = await asAdmin('POST', `/v1/apps/shop/keys/${id}/rotate`);
    assert.deepEqual([status, body.code], [409, 'key_ended']);
  });

  test('an app that is being deleted gets no further key', async () => {
    const { pool } = api.database;
    const deletion = { requestedAt: new Date().toISOString(), devices: 0, notifications: 0, messages: 0 };
    await pool.query("insert into apps (name, deletion) values ('leaving', $1)", [JSON.stringify(deletion)]);
    const { status, body } = await asAdmin('POST', '/v1/apps/leaving/keys', { name: 'k', scopes: ['devices:read'] });
    assert.deepEqual([status, body.code], [409, 'app_deleting']);
    assert.equal((await asAdmin('GET', '/v1/apps/leaving/keys')).status, 200);
  });

  test('last use is written once a minute at most', async () => {
    const { key, id } = (await make({})).body;
    const lastUse = async () => (await listed(id)).last_used_at;
    await statusWith(key);
    const first = await lastUse();
    await statusWith(key);
    assert.equal(await lastUse(), first);
    await api.database.pool.query("update api_keys set last_used_at = now() - interval '61 s' where id = $1", [id]);
    await statusWith(key);
    assert.ok(Date.parse(await lastUse()) >= Date.parse(first));
  });
});

describe('a key that ends', () => {
  let api: TestApi;
  let elapsedMs = 0;
  before(async () => {
    api = await createTestApi({ elapsedMs: () => elapsedMs });
  });
  after(() => api.close());

  /** Two processes over one database. */
  function processes() {
    const { db, pool } = api.database;
    const nothing = () => {};
    const log = { debug: nothing, info: nothing, warn: nothing, error: nothing };
    const woken = async () => 'woken' as const;
    const waker = { wake: woken, deleteApp: woken, check: async () => 'reachable' };
    return [1, 2].map(() => createApp({ db, pool, waker, log, elapsedMs: () => elapsedMs }));
  }

  async function statuses(apps: ReturnType<typeof processes>, key: string): Promise<number[]> {
    const headers = { authorization: `Bearer ${key}` };
    return Promise.all(apps.map(async (app) => (await app.request('/v1/devices/none', { headers })).status));
  }

  test('is refused by every process within ten seconds of its revocation', async () => {
    const { db, pool } = api.database;
    const key = await insertApiKey(db, { appId: 1, name: 'k', scopes: appScopes });
    const apps = processes();
    assert.deepEqual(await statuses(apps, key), [404, 404]);
    await pool.query("update api_keys set revoked_at = now() where name = 'k'");
    elapsedMs += 9_999;
    assert.deepEqual(await statuses(apps, key), [404, 404], 'believed without asking again');
    elapsedMs += 1;
    assert.deepEqual(await statuses(apps, key), [401, 401]);
  });

  test('is not believed beyond its expiry, however long it is kept', async () => {
    const { db, pool } = api.database;
    const expiresAt = new Date(Date.now() + 5_000);
    const key = await insertApiKey(db, { appId: 1, name: 'short', scopes: appScopes, expiresAt });
    const apps = processes();
    assert.deepEqual(await statuses(apps, key), [404, 404]);
    await pool.query("update api_keys set expires_at = now() - interval '1 ms' where name = 'short'");
    elapsedMs += 5_000;
    assert.deepEqual(await statuses(apps, key), [401, 401]);
  });

  test('is not believed in the middle of a stream either, whichever way it goes', async () => {
    const { db, pool } = api.database;
    const key = await insertApiKey(db, { appId: 1, name: 'streams', scopes: appScopes });
    const draft = { message: { title: 't' }, audience: { uploaded: true } };
    const { id } = (await api.request('POST', '/v1/notifications', draft)).body;
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/x-ndjson' };
    const lines = {
      'POST /v1/devices/import': { external_id: 'd', platform: 'ios' },
      'POST /v1/messages': { to: { external_id: 'd' }, message: { title: 't' } },
      [`PUT /v1/notifications/${id}/audience-list`]: { external_id: 'd' },
    };
    const started = Object.entries(lines).map(([route, line]) => {
      const [method, path] = route.split(' ');
      let sendLine = () => {};
      const body = new ReadableStream({
        start(controller) {
          sendLine = () => controller.enqueue(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
        },
      });
      sendLine();
      return { sendLine, answer: api.app.request(path!, { method, headers, body, duplex: 'half' } as RequestInit) };
    });
    const progress = await api.app.request(`/v1/notifications/${id}/progress`, { headers });
    const streams = await Promise.all(started.slice(0, 2).map(({ answer }) => answer));
    await until(async () => (await pool.query("select from messages where message->>'title' = 't'")).rows.length === 1);

    await pool.query("update api_keys set revoked_at = now() where name = 'streams'");
    elapsedMs += 10_000;
    for (const { sendLine } of started) sendLine();
    for (const stream of streams) {
      assert.match(
        await stream.text(),
        /"complete":false,"code":"unauthorized","message":"The key is no longer valid\."/,
      );
    }
    assert.equal((await started[2]!.answer).status, 401);
    assert.doesNotMatch(await progress.text(), /event: end/);
    assert.equal((await pool.query("select from messages where message->>'title' = 't'")).rows.length, 1);
  });
});
