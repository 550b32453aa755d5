import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { connect } from '../../db/connect.ts';
import { createTestDatabase } from '../support/database.ts';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

describe('readiness', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());

  // biome-ignore lint/suspicious/noExplicitAny: as in the harness.
  async function ready(app = api.app): Promise<{ status: number; body: any }> {
    const answer = await app.request('/readyz');
    return { status: answer.status, body: await answer.json() };
  }

  async function addApp(name: string): Promise<number> {
    const { rows } = await api.database.pool.query('insert into apps (name) values ($1) returning id', [name]);
    return rows[0].id;
  }

  const addDevice = (appId: number, name: string, provider: string) =>
    api.database.pool.query(
      `insert into devices (app_id, external_id, provider, platform, device_token)
       values ($1, $2, $3, case $3 when 'apns' then 'ios' else 'android' end, $4)`,
      [appId, name, provider, apnsToken(appId * 100 + name.length)],
    );

  const addCredential = (appId: number, columns = '', values = '') =>
    api.database.pool.query(
      `insert into credentials (id, app_id, kind, fingerprint, secret_jwe, activated_at${columns})
       values (gen_random_uuid(), $1, 'fcm_service_account', gen_random_uuid(), '', now()${values})`,
      [appId],
    );

  test('a database that was not migrated is not ready, and the log says so', async () => {
    const { pool, db, close } = await createTestDatabase();
    await pool.query('drop table notifications cascade');
    const other = await createTestApi({ db });
    const answer = await other.app.request('/readyz');
    const { status, database } = (await answer.json()) as { status: string; database: string };
    assert.deepEqual([answer.status, status, database], [503, 'not_ready', 'unusable (42P01)']);
    assert.match(String(other.errors[0]!.reason), /run npm run migrate$/);
    await other.close();
    await close();
  });

  test('health is open; readiness needs PostgreSQL and only mentions Temporal', async () => {
    const get = async (app: TestApi['app'], path: string) => {
      const response = await app.request(path);
      return { status: response.status, body: await response.json() };
    };
    assert.deepEqual(await get(api.app, '/healthz'), { status: 200, body: { status: 'ok' } });
    assert.equal((await get(api.app, '/readyz')).status, 200);
    const deferred = async () => 'deferred' as const;
    const waker = { wake: deferred, deleteApp: deferred, check: async () => 'unreachable' };
    const noTemporal = await createTestApi({ waker });
    const { status, body } = await get(noTemporal.app, '/readyz');
    const { migrations, temporal_unreachable_since: since, ...rest } = body as Record<string, unknown>;
    assert.deepEqual([status, (migrations as { status: string }).status], [200, 'current']);
    assert.deepEqual(rest, {
      ...{ status: 'ready', database: 'reachable', database_unusable_since: null, temporal: 'unreachable' },
      ...{ unreachable: [], mute_apps: [], halted_lanes: [], lanes_behind: [] },
    });
    const again = (await ready(noTemporal.app)).body;
    assert.deepEqual([typeof since, again.temporal_unreachable_since], ['string', since], 'since it was found so');
    const launched = await noTemporal.request('POST', '/v1/notifications', {
      message: { title: 'x' },
      audience: {},
      launch: true,
    });
    assert.deepEqual([launched.status, launched.body.state], [201, 'sending'], 'accepted without Temporal');
    await noTemporal.close();
    const { db } = connect('postgres://nobody@127.0.0.1:1/none');
    const noDatabase = await createTestApi({ db });
    for (let question = 0; question < 2; question++) {
      const { status, body } = await get(noDatabase.app, '/readyz');
      assert.deepEqual([status, (body as { database: string }).database], [503, 'unusable (ECONNREFUSED)']);
    }
    assert.deepEqual(noDatabase.errors, [{ reason: 'nothing listens at the address of DATABASE_URL (ECONNREFUSED)' }]);
    const answer = await noDatabase.request('GET', '/v1/notifications');
    assert.deepEqual(
      [answer.status, answer.body.code, answer.headers.get('retry-after')],
      [503, 'database_unavailable', '2'],
    );
    await noDatabase.close();
    await db.destroy();
  });

  test('a database without a migration that this code needs is not ready, and the log says so once', async () => {
    const { db, pool, close } = await createTestDatabase();
    const other = await createTestApi({ db });
    await pool.query(`delete from kysely_migration where name like '0013%'`);
    for (let question = 0; question < 2; question++) {
      const { status, body } = await ready(other.app);
      assert.deepEqual([status, body.status, body.database], [503, 'not_ready', 'reachable']);
      assert.deepEqual([body.migrations.status, body.migrations.missing], ['behind', ['0013-apps']]);
    }
    assert.deepEqual(other.errors, [{ missing: ['0013-apps'] }]);
    await pool.query(`insert into kysely_migration values ('0013-apps', now()::text)`);
    assert.equal((await ready(other.app)).status, 200);
    await other.close();
    await close();
  });

  test('a database that a later release has migrated is ready, and told', async () => {
    const { db, pool, close } = await createTestDatabase();
    const other = await createTestApi({ db });
    await pool.query(`insert into kysely_migration values ('9999-later', '2026-11-26T09:41:00.000Z')`);
    const { status, body } = await ready(other.app);
    assert.equal(status, 200);
    assert.deepEqual(body.migrations, {
      ...{ status: 'ahead', latest: '9999-later', applied_at: '2026-11-26T09:41:00.000Z' },
      ...{ missing: [], unknown: ['9999-later'] },
    });
    await other.close();
    await close();
  });

  test('tells the apps that cannot send, why and since when', async () => {
    const { pool } = api.database;
    const bare = await addApp('bare');
    await addDevice(bare, 'phone', 'apns');
    await addDevice(bare, 'tablet', 'fcm');
    await pool.query(`update devices set retired_at = now(), retired_reason = 'x' where external_id = 'phone'`);
    const past = await addApp('past');
    await addCredential(past, ', expires_at', `, '2026-01-02T03:04:05Z'`);
    const refused = await addApp('refused');
    await addCredential(refused, ', last_used_at, last_refused_at, last_refusal', `, now(), now(), 'Refused.'`);
    const mended = await addApp('mended');
    await addCredential(
      mended,
      ', last_used_at, last_refused_at, last_refusal',
      `, now(), now() - interval '2 min', 'x'`,
    );
    const renewed = await addApp('renewed');
    await addCredential(renewed, ', last_refused_at, last_refusal', `, now(), 'x'`);
    await addCredential(renewed, ', expires_at', `, now() + interval '1 day'`);
    await pool.query(
      `update credentials set activated_at = now() - interval '1 hour' where last_refused_at is not null and app_id = $1`,
      [renewed],
    );
    const leaving = await addApp('leaving');
    await addDevice(leaving, 'phone', 'apns');
    await pool.query(`update apps set deletion = '{}' where id = $1`, [leaving]);
    // Files that only workers see may be the credential of this one.
    await addDevice(1, 'phone', 'apns');

    const told = async () =>
      (await ready()).body.mute_apps.map((mute: Record<string, unknown>) => [
        mute.app,
        mute.provider,
        mute.reason,
        mute.detail,
      ]);
    assert.deepEqual(await told(), [
      ['bare', 'fcm', 'missing', null],
      ['past', 'fcm', 'expired', null],
      ['refused', 'fcm', 'refused', 'Refused.'],
    ]);
    const { status, body } = await ready();
    assert.equal(status, 200, 'requests are served all the same');
    assert.equal(body.mute_apps[1].since, '2026-01-02T03:04:05.000Z');

    await pool.query(`select open_lanes(1, 'apns', 1)`);
    await pool.query(`update lanes set halt_reason = 'credentials', halt_detail = 'No key.', halted_at = now()`);
    assert.deepEqual((await told())[1], ['default', 'apns', 'halted', 'No key.']);
    await pool.query('update lanes set halt_reason = null, halt_detail = null, halted_at = null');
  });

  test('tells the lanes that are behind, and since when', async () => {
    const { pool } = api.database;
    await api.request('PUT', '/v1/devices/slow', { platform: 'ios', device_token: apnsToken(7) });
    const sent = await api.request('POST', '/v1/messages', {
      to: { external_id: 'slow' },
      message: { title: 'Hello' },
    });
    assert.equal(sent.status, 202, sent.text);
    assert.deepEqual((await ready()).body.lanes_behind, [], 'not yet');
    await pool.query(`update message_entries set message_id = uuid_v7_floor(now() - interval '20 s')`);
    const [behind] = (await ready()).body.lanes_behind;
    assert.deepEqual([behind.app, behind.provider, behind.number], ['default', 'apns', 0]);
    assert.ok(Math.abs(Date.now() - 20_000 - Date.parse(behind.since)) < 15_000);
    // Handed to the provider.
    await pool.query('update lanes set horizon = 1');
    assert.deepEqual((await ready()).body.lanes_behind, []);
  });

  test('asks once a second, however many want to know', async () => {
    let now = 0;
    let asked = 0;
    const check = async () => {
      asked += 1;
      return 'reachable';
    };
    const deferred = async () => 'deferred' as const;
    const waker = { wake: deferred, deleteApp: deferred, check };
    const other = await createTestApi({ waker, readinessTtlMs: undefined, elapsedMs: () => now });
    await Promise.all([ready(other.app), ready(other.app), ready(other.app)]);
    now = 999;
    await ready(other.app);
    assert.equal(asked, 1);
    now = 1_000;
    await ready(other.app);
    assert.equal(asked, 2);
    await other.close();
  });
});
