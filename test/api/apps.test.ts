import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { insertApiKey } from '../../db/api-keys.ts';
import { appScopes } from '../../domain/scopes.ts';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

let api: TestApi;
let admin: string;
const deletions: string[] = [];
before(async () => {
  const deleteApp = async ({ name }: { name: string }) => {
    deletions.push(name);
    return 'woken' as const;
  };
  const wake = async () => 'woken' as const;
  api = await createTestApi({ keyCacheTtlMs: 0, waker: { wake, deleteApp, check: async () => 'reachable' } });
  const scopes = [...appScopes, 'admin'] as const;
  admin = await insertApiKey(api.database.db, { appId: null, name: 'operator', scopes });
});
after(() => api.close());

function ask(method: string, path: string, body?: unknown, app?: string): Promise<Answer> {
  const headers = { authorization: `Bearer ${admin}`, ...(app !== undefined && { 'carillon-app': app }) };
  return api.request(method, path, body, headers);
}

async function makeApp(name: string, settings: object = {}): Promise<Answer> {
  const answer = await ask('POST', '/v1/apps', { name, ...settings });
  assert.equal(answer.status, 201, answer.text);
  return answer;
}

const device = (n: number) => ({ platform: 'ios', device_token: apnsToken(n) });
const text = { title: 'Hello' };

describe('an app', () => {
  test('is made with its settings, listed, shown, and changed; null clears a field', async () => {
    const settings = {
      ...{ apns_topic: 'com.example.shop', apns_topics: ['com.example.shop.watch'], apns_environment: 'sandbox' },
      ...{ fcm_project_id: 'shop-4711', default_ttl_seconds: 3_600, default_in_doubt_policy: 'skip' },
      ...{ max_devices: 1_000, rates: { apns: 500, fcm: null } },
    };
    const made = await makeApp('shop', settings);
    assert.equal(made.headers.get('location'), '/v1/apps/shop');
    const { created_at: _, updated_at: __, ...rest } = made.body;
    assert.deepEqual(rest, { name: 'shop', ...settings, deletion: null });
    assert.deepEqual((await ask('GET', '/v1/apps/shop')).body, made.body);

    const changed = await ask('PATCH', '/v1/apps/shop', { default_ttl_seconds: 60, rates: { fcm: 20 } });
    assert.deepEqual(
      [changed.body.default_ttl_seconds, changed.body.rates, changed.body.apns_topic],
      [60, { apns: 500, fcm: 20 }, 'com.example.shop'],
    );
    const cleared = Object.fromEntries(Object.keys(settings).map((name) => [name, null]));
    const { body } = await ask('PATCH', '/v1/apps/shop', { ...cleared, rates: { apns: null, fcm: null } });
    assert.deepEqual(
      [body.apns_topic, body.apns_topics, body.apns_environment, body.fcm_project_id, body.default_ttl_seconds],
      [null, [], 'production', null, null],
    );
    assert.deepEqual(
      [body.default_in_doubt_policy, body.max_devices, body.rates],
      ['redeliver', null, { apns: null, fcm: null }],
    );
  });

  test('is listed by cursor, oldest first, the one of the first migration among them', async () => {
    for (const name of ['list-1', 'list-2', 'list-3']) await makeApp(name);
    const names: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await ask('GET', `/v1/apps?limit=2${cursor && `&cursor=${cursor}`}`);
      assert.ok(body.apps.length <= 2);
      names.push(...body.apps.map(({ name }: { name: string }) => name));
      cursor = body.next_cursor;
    }
    assert.equal(names[0], 'default');
    assert.deepEqual(
      names.filter((name) => name.startsWith('list-')),
      ['list-1', 'list-2', 'list-3'],
    );
  });

  test('of a name that is taken is a conflict', async () => {
    await makeApp('twice');
    const { status, body } = await ask('POST', '/v1/apps', { name: 'twice' });
    assert.deepEqual([status, body.code, body.field], [409, 'app_exists', 'name']);
  });

  test('is refused by the field that is wrong', async () => {
    const faults: [object, string][] = [
      [{ name: 'Shop' }, 'name'],
      [{ name: '-shop' }, 'name'],
      [{ name: 'a'.repeat(64) }, 'name'],
      [{ apns_topic: 'com.example.shop.voip' }, 'apns_topic'],
      [{ apns_topic: 'not a bundle id' }, 'apns_topic'],
      [{ apns_topic: 'com.a', apns_topics: ['com.b', 'com.b'] }, 'apns_topics'],
      [{ apns_topic: 'com.a', apns_topics: ['com.b', 'com c'] }, 'apns_topics[1]'],
      [{ apns_topics: ['com.b'] }, 'apns_topics'],
      [{ apns_environment: 'test' }, 'apns_environment'],
      [{ fcm_project_id: 'Shop' }, 'fcm_project_id'],
      [{ default_ttl_seconds: -1 }, 'default_ttl_seconds'],
      [{ default_ttl_seconds: 2_419_201 }, 'default_ttl_seconds'],
      [{ default_in_doubt_policy: 'hope' }, 'default_in_doubt_policy'],
      [{ max_devices: -1 }, 'max_devices'],
      [{ rates: { apns: 0 } }, 'rates.apns'],
      [{ rates: { web: 5 } }, 'rates.web'],
      [{ topic: 'com.a' }, 'topic'],
    ];
    for (const [body, field] of faults) {
      const answer = await ask('POST', '/v1/apps', { name: 'faulty', ...body });
      assert.deepEqual([answer.status, answer.body.field], [422, field]);
    }
    assert.equal((await ask('GET', '/v1/apps/faulty')).status, 404);
    await makeApp('patched', { apns_topic: 'com.a', apns_topics: ['com.b'] });
    const { status, body } = await ask('PATCH', '/v1/apps/patched', { apns_topic: null });
    assert.deepEqual([status, body.field], [422, 'apns_topics']);
    assert.equal((await ask('GET', '/v1/apps/patched')).body.apns_topic, 'com.a', 'nothing of it was stored');
    assert.equal((await ask('PATCH', '/v1/apps/patched', { name: 'other' })).status, 422);
    assert.equal((await ask('PATCH', '/v1/apps/patched', {})).status, 422);
  });

  test('is no business of its own keys', async () => {
    for (const [method, path] of [
      ['GET', '/v1/apps'],
      ['GET', '/v1/apps/default'],
      ['DELETE', '/v1/apps/default'],
      ['GET', '/v1/apps/default/rates'],
      ['GET', '/v1/audit'],
    ] as const) {
      const { status, body } = await api.request(method, path);
      assert.deepEqual([status, body.scope], [403, 'admin'], `${method} ${path}`);
    }
  });
});

describe('defaults of an app', () => {
  const audience = { external_ids: ['nobody'] };

  test('are those of notifications and messages that say nothing else', async () => {
    await makeApp('defaults', { default_ttl_seconds: 900, default_in_doubt_policy: 'skip' });
    await ask('PUT', '/v1/devices/phone', device(1), 'defaults');
    const silent = await ask('POST', '/v1/notifications', { message: text, audience }, 'defaults');
    assert.deepEqual([silent.body.message.ttl, silent.body.in_doubt_policy], [900, 'skip']);
    const said = { message: { ...text, ttl: 5 }, audience, in_doubt_policy: 'redeliver' };
    const { body } = await ask('POST', '/v1/notifications', said, 'defaults');
    assert.deepEqual([body.message.ttl, body.in_doubt_policy], [5, 'redeliver']);
    const edited = await ask('PATCH', `/v1/notifications/${body.id}`, { message: { title: 'New' } }, 'defaults');
    assert.equal(edited.body.message.ttl, 900);
    const message = await ask('POST', '/v1/messages', { to: { external_id: 'phone' }, message: text }, 'defaults');
    assert.equal(message.body.in_doubt_policy, 'skip');
    assert.equal(Date.parse(message.body.expires_at) - Date.parse(message.body.created_at), 900_000);
  });

  test('of no other app', async () => {
    const { body } = await ask('POST', '/v1/notifications', { message: text, audience }, 'default');
    assert.deepEqual([body.message.ttl, body.in_doubt_policy], [undefined, 'redeliver']);
  });

  test('that change between two requests do not make them two', async () => {
    await makeApp('repeats');
    const send = () =>
      api.request(
        'POST',
        '/v1/notifications',
        { message: text, audience },
        { authorization: `Bearer ${admin}`, 'carillon-app': 'repeats', 'idempotency-key': 'one' },
      );
    const first = await send();
    await ask('PATCH', '/v1/apps/repeats', { default_ttl_seconds: 5, default_in_doubt_policy: 'skip' });
    const second = await send();
    assert.deepEqual([first.status, second.status, second.body.id], [201, 200, first.body.id]);
  });
});

describe('topics of an app', () => {
  before(() => makeApp('topics', { apns_topic: 'com.example.shop', apns_topics: ['com.example.shop.watch'] }));
  const named = (topic: string, rest: object = {}) => ({
    ...text,
    ...rest,
    apns: { headers: { 'apns-topic': topic } },
  });
  const post = (message: object, app: string) =>
    ask('POST', '/v1/notifications', { message, audience: { external_ids: ['nobody'] } }, app);

  test('may be named by a message, with the suffix of its push type', async () => {
    assert.equal((await post(named('com.example.shop'), 'topics')).status, 201);
    assert.equal((await post(named('com.example.shop.watch'), 'topics')).status, 201);
    assert.equal((await post(named('com.example.shop.voip', { push_type: 'voip' }), 'topics')).status, 201);
  });

  test("another is refused by its field, in notifications, messages and edits; an app without a topic doesn't mind", async () => {
    const strange = named('com.example.other');
    const to = { external_id: 'nobody' };
    const field = 'message.apns.headers.apns-topic';
    for (const { status, body } of [
      await post(strange, 'topics'),
      await ask('POST', '/v1/messages', { to, message: strange }, 'topics'),
    ]) {
      assert.deepEqual([status, body.code, body.field], [422, 'payload_invalid', field]);
    }
    assert.equal((await post(named('com.example.shop', { push_type: 'voip' }), 'topics')).status, 422);
    const draft = await post(text, 'topics');
    const edit = await ask('PATCH', `/v1/notifications/${draft.body.id}`, { message: strange }, 'topics');
    assert.deepEqual([edit.status, edit.body.field], [422, field]);
    assert.equal((await post(strange, 'default')).status, 201);
  });
});

describe('rates', () => {
  test('are set and cleared by provider', async () => {
    await makeApp('rated', { rates: { fcm: 7 } });
    assert.deepEqual((await ask('GET', '/v1/apps/rated/rates')).body, {
      apns: { per_second: null },
      fcm: { per_second: 7 },
    });
    const set = await ask('PUT', '/v1/apps/rated/rates/apns', { per_second: 50 });
    assert.deepEqual([set.status, set.body], [200, { per_second: 50 }]);
    await ask('PUT', '/v1/apps/rated/rates/fcm', { per_second: null });
    assert.deepEqual((await ask('GET', '/v1/apps/rated')).body.rates, { apns: 50, fcm: null });
    assert.equal((await ask('PUT', '/v1/apps/rated/rates/web', { per_second: 5 })).status, 422);
    assert.equal((await ask('PUT', '/v1/apps/rated/rates/apns', {})).status, 422);
    assert.equal((await ask('PUT', '/v1/apps/nowhere/rates/apns', { per_second: 5 })).status, 404);
  });
});

describe('a limit of devices', () => {
  const put = (app: string, id: string, n: number) => ask('PUT', `/v1/devices/${id}`, device(n), app);

  async function importRows(app: string, ids: number[]): Promise<Record<string, unknown>[]> {
    const lines = ids.map((n) => JSON.stringify({ external_id: `p${n}`, ...device(n) })).join('\n');
    const { text } = await api.request('POST', '/v1/devices/import', lines, {
      ...{ authorization: `Bearer ${admin}`, 'carillon-app': app, 'content-type': 'application/x-ndjson' },
    });
    return text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  }

  test('refuses further devices, and none that is known', async () => {
    await makeApp('small', { max_devices: 2 });
    assert.equal((await put('small', 'p1', 101)).status, 201);
    assert.equal((await put('small', 'p2', 102)).status, 201);
    for (let repeat = 0; repeat < 3; repeat++) {
      const { status, body } = await put('small', 'p3', 103);
      assert.deepEqual([status, body.code, body.max_devices], [409, 'device_limit_reached', 2]);
      assert.equal((await put('small', 'p1', 104)).status, 200);
    }
    await ask('PATCH', '/v1/apps/small', { max_devices: 3 });
    assert.equal((await put('small', 'p3', 103)).status, 201);
  });

  test('holds for imports: as many new ones as there is room for, in their order', async () => {
    await makeApp('imports', { max_devices: 5 });
    await put('imports', 'p1', 1);
    await put('imports', 'p2', 2);
    const answer = await importRows('imports', [1, 10, 2, 11, 12, 13, 14, 1]);
    assert.deepEqual(
      answer.slice(0, -1).map(({ external_id, code }) => [external_id, code]),
      [
        ['p13', 'device_limit_reached'],
        ['p14', 'device_limit_reached'],
      ],
    );
    const { imported, failed, complete } = answer.at(-1)!;
    assert.deepEqual([imported, failed, complete], [6, 2, true]);
    const { rows } = await api.database.pool.query(
      "select count(*) from devices where app_id = (select id from apps where name = 'imports')",
    );
    assert.equal(rows[0].count, 5);
  });

  test('of 0 refuses every device', async () => {
    await makeApp('none', { max_devices: 0 });
    assert.equal((await put('none', 'p1', 1)).status, 409);
  });
});

describe('deleting an app', () => {
  const keyOf = async (name: string) => {
    const { body } = await ask('POST', `/v1/apps/${name}/keys`, { name: 'k', scopes: [...appScopes] });
    return body.key as string;
  };

  test('that has something is refused and says what, unless it is confirmed by name', async () => {
    await makeApp('full');
    await ask('PUT', '/v1/devices/phone', device(1), 'full');
    await ask('POST', '/v1/notifications', { message: text, audience: {} }, 'full');
    await ask('POST', '/v1/messages', { to: { external_id: 'phone' }, message: text }, 'full');
    const refused = await ask('DELETE', '/v1/apps/full');
    assert.deepEqual([refused.status, refused.body.code], [409, 'app_not_empty']);
    assert.deepEqual([refused.body.devices, refused.body.notifications, refused.body.messages], [1, 1, 1]);
    const wrong = await ask('DELETE', '/v1/apps/full?confirm=shop');
    assert.deepEqual([wrong.status, wrong.body.field], [422, 'confirm']);
    assert.equal((await ask('GET', '/v1/apps/full')).body.deletion, null);
    assert.ok(!deletions.includes('full'));
    const { status, body } = await ask('DELETE', '/v1/apps/full?confirm=full');
    assert.deepEqual([status, body.deletion.stage, body.deletion.devices], [202, 'ending', 0]);
    assert.ok(deletions.includes('full'));
  });

  test('revokes its keys; from then on nothing of it can be created, by whomever, and a repeat is harmless', async () => {
    await makeApp('ending');
    const key = await keyOf('ending');
    const withKey = () => api.request('GET', '/v1/notifications', undefined, { authorization: `Bearer ${key}` });
    assert.equal((await withKey()).status, 200);
    const first = await ask('DELETE', '/v1/apps/ending');
    assert.equal(first.status, 202, 'nothing is in it');
    assert.equal((await withKey()).status, 401);
    for (const [method, path, body] of [
      ['PUT', '/v1/devices/phone', device(5)],
      ['POST', '/v1/notifications', { message: text, audience: {} }],
      ['POST', '/v1/messages', { to: { external_id: 'phone' }, message: text }],
      ['GET', '/v1/notifications', undefined],
    ] as const) {
      const answer = await ask(method, path, body, 'ending');
      assert.deepEqual([answer.status, answer.body.code], [409, 'app_deleting'], path);
    }
    assert.equal((await ask('PATCH', '/v1/apps/ending', { max_devices: 1 })).body.code, 'app_deleting');
    assert.equal((await ask('PUT', '/v1/apps/ending/rates/apns', { per_second: 1 })).body.code, 'app_deleting');
    const again = await ask('DELETE', '/v1/apps/ending');
    assert.deepEqual([again.status, again.body.deletion], [202, first.body.deletion]);
    assert.equal((await ask('GET', '/v1/apps/ending')).status, 200);
  });

  test('default is refused: it is the one of credentials from files', async () => {
    const { status, body } = await ask('DELETE', '/v1/apps/default?confirm=default');
    assert.deepEqual([status, body.code], [409, 'default_app']);
  });

  test('that is not there is 404', async () => {
    assert.equal((await ask('DELETE', '/v1/apps/nowhere?confirm=nowhere')).status, 404);
  });
});
