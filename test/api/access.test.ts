import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createJwtVerifier } from '../../api/access/jwt.ts';
import { ensureFirstApiKey } from '../../db/api-keys.ts';
import { connect } from '../../db/connect.ts';
import { createTestDatabase } from '../support/database.ts';
import { createTestApi, type TestApi } from './harness.ts';

describe('access', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi({ keyCacheTtlMs: 0 });
  });
  after(() => api.close());

  const ask = (app: TestApi['app'], credential: string) =>
    app.request('/v1/notifications', { headers: { authorization: `Bearer ${credential}` } });

  test('the first key is made once, however many callers ask at the same time, and only its hash is stored', async () => {
    const { db, pool, close } = await createTestDatabase();
    const keys = await Promise.all(Array.from({ length: 5 }, () => ensureFirstApiKey(db)));
    const made = keys.filter((key) => key !== undefined);
    assert.equal(made.length, 1);
    assert.match(made[0]!, /^ck_[\w-]{43}$/);
    const { rows } = await pool.query('select * from api_keys');
    assert.equal(JSON.stringify(rows).includes(made[0]!.slice(3)), false);
    assert.equal(rows[0].key_hash.length, 32);
    await close();
  });

  test('a revoked key is refused', async () => {
    assert.equal((await ask(api.app, api.key)).status, 200);
    await api.database.pool.query('update api_keys set revoked_at = now()');
    assert.equal((await ask(api.app, api.key)).status, 401);
    await api.database.pool.query('update api_keys set revoked_at = null');
  });

  test('JWTs of the outside issuer: its signature, issuer, audience and time are checked, its claim names the app', async () => {
    const { publicKey, privateKey } = await generateKeyPair('ES256');
    const stranger = await generateKeyPair('ES256');
    const jwks = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
    const options = { jwksUrl: 'https://issuer.example/jwks', issuer: 'https://issuer.example', audience: 'carillon' };
    const { db } = api.database;
    const jwt = (claims: object, key = privateKey, expires = '5m') =>
      new SignJWT({ iss: options.issuer, aud: options.audience, sub: 'ci', ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
        .setExpirationTime(expires)
        .sign(key);
    const verify = createJwtVerifier(db, options, jwks);
    assert.deepEqual(await verify(await jwt({})), { appId: 1, subject: 'ci', scopes: ['*'] });
    assert.deepEqual((await verify(await jwt({ scope: 'a b' })))?.scopes, ['a', 'b']);
    assert.equal(await verify(await jwt({ iss: 'https://other.example' })), undefined);
    assert.equal(await verify(await jwt({ aud: 'other' })), undefined);
    assert.equal(await verify(await jwt({ carillon_app: 'no-such-app' })), undefined);
    assert.equal(await verify(await jwt({}, stranger.privateKey)), undefined);
    assert.equal(await verify(await jwt({}, privateKey, '-5m')), undefined);
    assert.equal(await verify('a.b.c'), undefined);
    const unsigned = `${btoa('{"alg":"none"}')}.${btoa(JSON.stringify({ iss: options.issuer, aud: 'carillon', exp: 9e9 }))}.`;
    assert.equal(await verify(unsigned.replaceAll('=', '')), undefined);

    const other = await createTestApi({ verifyJwt: verify });
    assert.equal((await ask(other.app, await jwt({}))).status, 200);
    assert.equal((await ask(other.app, await jwt({ aud: 'other' }))).status, 401);
    assert.equal((await ask(other.app, other.key)).status, 200, 'keys go on working');
    const broken = createJwtVerifier(db, options, () => Promise.reject(new TypeError('fetch failed')));
    const away = await createTestApi({ verifyJwt: broken });
    assert.equal((await ask(away.app, await jwt({}))).status, 503);
    await other.close();
    await away.close();
  });

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
    const waker = { wake: async () => 'deferred' as const, check: async () => 'unreachable' };
    const noTemporal = await createTestApi({ waker });
    assert.deepEqual(await get(noTemporal.app, '/readyz'), {
      status: 200,
      body: { status: 'ready', database: 'reachable', temporal: 'unreachable', unreachable: [], halted_lanes: [] },
    });
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
});
