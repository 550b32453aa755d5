import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { insertApiKey } from '../../db/api-keys.ts';
import { listAuditEntriesOfAllApps, recordChange } from '../../db/audit-entries.ts';
import { haltLane } from '../../db/lanes.ts';
import { haltNotificationOfAnyApp } from '../../db/notification-moves.ts';
import { appScopes } from '../../domain/scopes.ts';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

let api: TestApi;
let admin: string;
let adminId: string;
before(async () => {
  api = await createTestApi({ keyCacheTtlMs: 0 });
  const scopes = [...appScopes, 'admin'] as const;
  admin = await insertApiKey(api.database.db, { appId: null, name: 'operator', scopes });
  const { rows } = await api.database.pool.query("select id from api_keys where name = 'operator'");
  adminId = rows[0].id;
  await ask('POST', '/v1/apps', { name: 'shop' });
  await ask('PUT', '/v1/devices/phone', { platform: 'ios', device_token: apnsToken(7) });
});
after(() => api.close());

function ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return api.request(method, path, body, { authorization: `Bearer ${admin}`, 'carillon-app': 'shop', ...headers });
}

interface Entry {
  id: string;
  action: string;
  app: string | null;
  actor: { kind: string; id: string };
  request_id: string | null;
  target: { kind: string; id: string };
  changes: Record<string, unknown>;
}

const entries = async (query: string): Promise<Entry[]> => (await ask('GET', `/v1/audit?${query}`)).body.entries;

/** What one request has left in the audit. */
async function leftBy(
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
): Promise<Entry[]> {
  const [latest] = await entries('limit=1');
  await ask(method, path, body, headers);
  const all = await entries('limit=50');
  return all.slice(
    0,
    all.findIndex(({ id }) => id === latest?.id),
  );
}

const shown = ({ action, target, changes }: Entry) => [action, target.kind, changes];
const secret = 'Your code is 4711';
const message = { title: secret, body: secret };
const audience = { external_ids: ['phone-of-somebody'] };

async function draft(body: object = {}): Promise<string> {
  return (await ask('POST', '/v1/notifications', { message, audience, ...body })).body.id;
}

describe('each change leaves one entry', () => {
  test('with who made it, by which request, from where, and to what', async () => {
    const id = await draft();
    const launched = await ask('POST', `/v1/notifications/${id}/launch`, {});
    const [entry] = await entries('limit=1');
    const { request_id, app, actor, target, action } = entry!;
    assert.deepEqual([action, app, target], ['notification.launch', 'shop', { kind: 'notification', id }]);
    assert.deepEqual(actor, { kind: 'key', id: adminId });
    assert.equal(request_id, launched.headers.get('x-request-id'));
    assert.ok('address' in entry!);
  });

  test('of a notification: create, update, upload, launch, pause, resume, cancel, unschedule, delete', async () => {
    const later = new Date(Date.now() + 3_600_000).toISOString();
    const evenLater = new Date(Date.now() + 7_200_000).toISOString();
    const created = await leftBy('POST', '/v1/notifications', { message, audience });
    assert.deepEqual(created.map(shown), [
      ['notification.create', 'notification', { state: 'draft', scheduled_at: null }],
    ]);
    const { id } = created[0]!.target;
    const path = `/v1/notifications/${id}`;
    const steps: [string, string, unknown, unknown[]][] = [
      [
        ...(['PATCH', path, { message: { title: 'x' }, in_doubt_policy: 'skip' }] as const),
        ['notification.update', { message: 'changed', in_doubt_policy: { from: 'redeliver', to: 'skip' } }],
      ],
      ['POST', `${path}/launch`, { scheduled_at: later }, ['notification.launch', { scheduled_at: later }]],
      [
        ...(['PATCH', path, { scheduled_at: evenLater }] as const),
        ['notification.update', { scheduled_at: { from: later, to: evenLater } }],
      ],
      ['POST', `${path}/unschedule`, {}, ['notification.unschedule', {}]],
      ['POST', `${path}/launch`, {}, ['notification.launch', {}]],
      ['PATCH', path, { rate_per_second: 5 }, ['notification.update', { rate_per_second: { from: null, to: 5 } }]],
      ['POST', `${path}/pause`, {}, ['notification.pause', {}]],
      ['POST', `${path}/resume`, {}, ['notification.resume', {}]],
      ['POST', `${path}/cancel`, {}, ['notification.cancel', {}]],
    ];
    for (const [method, where, body, expected] of steps) {
      const left = await leftBy(method, where, body);
      assert.deepEqual(
        left.map(({ action, changes }) => [action, changes]),
        [expected],
      );
      assert.equal(left[0]!.target.id, id);
      assert.deepEqual(await leftBy(method, where, body), [], `a repeat of ${expected[0]} changes nothing`);
    }
    const other = await draft({ audience: { uploaded: true } });
    const lines = `${JSON.stringify({ external_id: 'phone' })}\n`;
    const type = { 'content-type': 'application/x-ndjson' };
    const uploaded = await leftBy('PUT', `/v1/notifications/${other}/audience-list`, lines, type);
    assert.deepEqual(
      uploaded.map(({ target, changes }) => [target.id, changes]),
      [[other, { listed: 1, matched: 1, live: 1 }]],
    );
    assert.deepEqual((await leftBy('DELETE', `/v1/notifications/${other}`)).map(shown), [
      ['notification.delete', 'notification', {}],
    ]);
  });

  test('of an app and its rates, with both values', async () => {
    const [created] = await leftBy('POST', '/v1/apps', { name: 'audited', max_devices: 5 });
    assert.deepEqual([created!.action, created!.app, created!.changes.max_devices], ['app.create', 'audited', 5]);
    const target = { kind: 'app', id: 'audited' };
    const [changed] = await leftBy('PATCH', '/v1/apps/audited', { max_devices: null, apns_topic: 'com.example' });
    assert.deepEqual(changed!.target, target);
    assert.deepEqual(changed!.changes, {
      max_devices: { from: 5, to: null },
      apns_topic: { from: null, to: 'com.example' },
    });
    assert.deepEqual(await leftBy('PATCH', '/v1/apps/audited', { max_devices: null }), []);
    const [rated] = await leftBy('PUT', '/v1/apps/audited/rates/fcm', { per_second: 9 });
    assert.deepEqual(rated!.changes, {
      rates: { from: { apns: null, fcm: null }, to: { apns: null, fcm: 9 } },
    });
    const [deleted] = await leftBy('DELETE', '/v1/apps/audited');
    assert.deepEqual([deleted!.action, deleted!.target], ['app.delete', target]);
    assert.deepEqual(await leftBy('DELETE', '/v1/apps/audited'), []);
  });

  test('of messages: none for each, one for a cancel; of lanes: one for a resume that ends a halt', async () => {
    const to = { external_id: 'phone' };
    assert.deepEqual(await leftBy('POST', '/v1/messages', { to, message }), []);
    const { body } = await ask('POST', '/v1/messages', { to, message });
    assert.deepEqual((await leftBy('DELETE', `/v1/messages/${body.id}`)).map(shown), [
      ['message.cancel', 'message', { devices: 1 }],
    ]);
    assert.deepEqual(await leftBy('DELETE', `/v1/messages/${body.id}`), []);
    assert.deepEqual(await leftBy('POST', '/v1/messages/resume', {}), []);
    const { rows } = await api.database.pool.query('select id, fence from lanes order by id limit 1');
    const claim = { laneId: rows[0].id, fence: rows[0].fence, horizon: 0, settled: 0 };
    await haltLane(api.database.db, claim, { reason: 'credentials', detail: 'The key is revoked.' });
    await haltLane(api.database.db, claim, { reason: 'credentials', detail: 'The key is revoked.' });
    const halts = await entries('action=lane.halt');
    assert.deepEqual(
      halts.map(({ actor, target, changes, app }) => [actor.kind, target, changes, app]),
      [['worker', { kind: 'lane', id: 'apns-0' }, { reason: 'credentials' }, 'shop']],
      'the second look at the same fault is none',
    );
    assert.deepEqual((await leftBy('POST', '/v1/messages/resume', {})).map(shown), [
      ['lanes.resume', 'app', { lanes: 1 }],
    ]);
  });

  test('of an import: one, with what it came to; none for a device', async () => {
    assert.deepEqual(await leftBy('PUT', '/v1/devices/other', { platform: 'ios', device_token: apnsToken(8) }), []);
    const rows = ['a', 'b'].map((id, n) =>
      JSON.stringify({ external_id: id, platform: 'ios', device_token: apnsToken(50 + n) }),
    );
    const body = [...rows, '{"external_id": "c"}'].join('\n');
    const left = await leftBy('POST', '/v1/devices/import', body, { 'content-type': 'application/x-ndjson' });
    assert.deepEqual(left.map(shown), [
      [
        ...['devices.import', 'import'],
        { imported: 2, superseded: 0, failed: 1, warnings: 0, lines: 3, complete: true },
      ],
    ]);
  });

  test('of a worker: a halt', async () => {
    const id = await draft({ launch: true });
    const { rows } = await api.database.pool.query('select version from notifications where id = $1', [id]);
    const seen = { id, version: rows[0].version };
    const halt = { reason: 'credentials' as const, detail: 'The key is revoked.' };
    assert.equal(await haltNotificationOfAnyApp(api.database.db, seen, halt), true);
    assert.equal(await haltNotificationOfAnyApp(api.database.db, seen, halt), false);
    const halts = await entries(`action=notification.halt&target_id=${id}`);
    assert.deepEqual(
      halts.map(({ actor, changes }) => [actor.kind, changes]),
      [['worker', { reason: 'credentials' }]],
    );
  });
});

test('a change that is refused or rolled back leaves none', async () => {
  const id = await draft({ launch: true });
  await ask('POST', `/v1/notifications/${id}/cancel`, {});
  assert.deepEqual(await leftBy('POST', `/v1/notifications/${id}/pause`, {}), []);
  assert.deepEqual(await leftBy('POST', '/v1/apps', { name: 'shop' }), []);
  const { db } = api.database;
  const change = { appId: 1, action: 'test.rolled_back', target: { kind: 'test', id: '1' } };
  const actor = { kind: 'operator', id: 'somebody', requestId: null, address: null } as const;
  await assert.rejects(
    db.transaction().execute(async (trx) => {
      await recordChange(trx, actor, change);
      throw new Error('taken back');
    }),
  );
  assert.deepEqual(await entries('action=test.rolled_back'), []);
});

test('no secret, no text of a message and no device token is in any', async () => {
  const { body } = await ask('POST', '/v1/apps/shop/keys', { name: 'k', scopes: ['devices:read'] });
  await draft({ title: secret });
  const { rows } = await api.database.pool.query('select changes::text from audit_entries');
  assert.ok(rows.length > 3);
  for (const { changes } of rows) {
    for (const word of [secret, body.key, admin, apnsToken(7), 'phone-of-somebody']) assert.ok(!changes.includes(word));
  }
});

describe('the audit', () => {
  const keys = (count: number) => Array.from({ length: count }, (_, n) => `key-${n}`);
  before(async () => {
    for (const id of keys(5)) {
      const actor = { kind: 'operator', id, requestId: null, address: '192.0.2.1' } as const;
      await recordChange(api.database.db, actor, {
        ...{ appId: null, action: 'listing.test', target: { kind: 'thing', id: `thing-${id}` } },
      });
    }
  });

  test('is read by cursor, newest first', async () => {
    const actors: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await ask('GET', `/v1/audit?action=listing.test&limit=2${cursor && `&cursor=${cursor}`}`);
      actors.push(...body.entries.map(({ actor }: Entry) => actor.id));
      cursor = body.next_cursor;
    }
    assert.deepEqual(actors, keys(5).reverse());
  });

  test('is searched by app, actor, action, target and time', async () => {
    const found = async (query: string) => (await entries(`limit=1000&${query}`)).map(({ actor }) => actor.id);
    assert.deepEqual(await found('actor=key-3'), ['key-3']);
    assert.deepEqual(await found('target_kind=thing&target_id=thing-key-2'), ['key-2']);
    assert.deepEqual(await found('action=listing.test&app=shop'), []);
    assert.ok((await found('app=shop')).length > 0);
    const all = await entries('action=listing.test');
    const [, , middle] = all as (Entry & { at: string })[];
    const since = await found(`action=listing.test&since=${middle!.at}`);
    const until = await found(`action=listing.test&until=${middle!.at}`);
    assert.ok(since.includes('key-2') && !until.includes('key-2'));
    assert.equal(since.length + until.length, 5);
    assert.deepEqual(await found('since=0001-01-01T00:00:00Z&action=nothing'), []);
  });

  test('comes whole as NDJSON', async () => {
    const { text, headers } = await ask('GET', '/v1/audit?action=listing.test&limit=1', undefined, {
      accept: 'application/x-ndjson',
    });
    assert.equal(headers.get('content-type'), 'application/x-ndjson');
    const lines = text.trim().split('\n');
    assert.deepEqual(
      lines.map((line) => (JSON.parse(line) as Entry).actor.id),
      keys(5).reverse(),
    );
  });

  test('of months that ended long ago can be dropped', async () => {
    const { db, pool } = api.database;
    const old =
      "(select (overlay(gen_random_uuid()::text placing left(uuid_v7_floor('2025-01-15')::text, 13) from 1 for 13))::uuid)";
    await pool.query(
      `select record_audit_entry(${old}, null, 'operator', 'o', null, null, 'old.test', 'thing', '1', '{}')`,
    );
    const count = async () => (await listAuditEntriesOfAllApps(db, { action: 'old.test' }, { limit: 5 })).length;
    assert.equal(await count(), 1);
    const { rows } = await pool.query("select * from drop_audit_months('2025-01-31T23:59:59Z')");
    assert.deepEqual([rows.length, await count()], [0, 1], 'the month has not ended');
    const dropped = await pool.query("select * from drop_audit_months('2025-02-01T00:00:00Z') as name");
    assert.deepEqual(dropped.rows, [{ name: 'audit_entries_2025_01' }]);
    assert.equal(await count(), 0);
    assert.ok((await entries('action=listing.test')).length === 5);
  });
});
