import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Hono } from 'hono';
import {
  createLocalJWKSet,
  exportJWK,
  type GenerateKeyPairResult,
  generateKeyPair,
  type JWTVerifyGetKey,
  SignJWT,
} from 'jose';
import { clientAddress } from '../../api/access/client-address.ts';
import { createJwtVerifier, type JwtVerifier } from '../../api/access/jwt.ts';
import { ensureFirstApiKey } from '../../db/api-keys.ts';
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

  test('a caller has the address that the outermost of our own proxies saw', async () => {
    const forwarded = { 'x-forwarded-for': '203.0.113.1, 198.51.100.2,2001:db8::3', forwarded: 'for=192.0.2.4' };
    type Row = {
      peer: string | undefined;
      trustedProxies: number;
      headers: Record<string, string>;
      address: string | null;
    };
    const rows: Row[] = [
      { peer: '10.0.0.9', trustedProxies: 0, headers: forwarded, address: '10.0.0.9' },
      { peer: '::ffff:10.0.0.9', trustedProxies: 0, headers: {}, address: '10.0.0.9' },
      { peer: '10.0.0.9', trustedProxies: 1, headers: forwarded, address: '2001:db8::3' },
      { peer: '10.0.0.9', trustedProxies: 2, headers: forwarded, address: '198.51.100.2' },
      { peer: '10.0.0.9', trustedProxies: 9, headers: forwarded, address: '203.0.113.1' },
      { peer: '10.0.0.9', trustedProxies: 1, headers: {}, address: '10.0.0.9' },
      { peer: '10.0.0.9', trustedProxies: 1, headers: { 'x-forwarded-for': '<script>' }, address: '10.0.0.9' },
      { peer: undefined, trustedProxies: 0, headers: forwarded, address: null },
    ];
    for (const { peer, headers, address, ...options } of rows) {
      const addressOf = clientAddress({ peerAddress: () => peer, ...options });
      const app = new Hono().get('/', (c) => c.json(addressOf(c)));
      assert.equal(await (await app.request('/', { headers })).json(), address);
    }
  });

  describe('JWTs of the outside issuer', () => {
    const options = {
      ...{ jwksUrl: 'https://issuer.example/jwks', issuer: 'https://issuer.example', audience: 'carillon' },
      ...{ scopeClaim: 'scope', appClaim: 'carillon_app' },
    };
    let issuer: GenerateKeyPairResult;
    let jwks: JWTVerifyGetKey;
    let verify: JwtVerifier;
    before(async () => {
      issuer = await generateKeyPair('ES256');
      jwks = createLocalJWKSet({ keys: [{ ...(await exportJWK(issuer.publicKey)), kid: 'k1', alg: 'ES256' }] });
      verify = createJwtVerifier(api.database.db, options, jwks);
    });

    const jwt = (claims: object, key = issuer.privateKey, expires = '5m') =>
      new SignJWT({ iss: options.issuer, aud: options.audience, sub: 'ci', ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
        .setExpirationTime(expires)
        .sign(key);
    const granted = async (claims: object) => {
      const found = await verify(await jwt(claims));
      return found && [found.caller.app?.name, ...found.caller.scopes];
    };

    test('its signature, issuer, audience and time are checked', async () => {
      const stranger = await generateKeyPair('ES256');
      assert.deepEqual((await verify(await jwt({})))?.caller.subject, 'ci');
      assert.equal(await verify(await jwt({ iss: 'https://other.example' })), undefined);
      assert.equal(await verify(await jwt({ aud: 'other' })), undefined);
      assert.equal(await verify(await jwt({}, stranger.privateKey)), undefined);
      assert.equal(await verify(await jwt({}, issuer.privateKey, '-5m')), undefined);
      assert.equal(await verify('a.b.c'), undefined);
      const claims = btoa(JSON.stringify({ iss: options.issuer, aud: 'carillon', exp: 9e9 }));
      assert.equal(await verify(`${btoa('{"alg":"none"}')}.${claims}.`.replaceAll('=', '')), undefined);
    });

    test('without a claim of scopes it may do nothing, and what is no scope here is left out', async () => {
      assert.deepEqual(await granted({}), ['default']);
      assert.deepEqual(await granted({ scope: '*' }), ['default']);
      assert.deepEqual(await granted({ scope: 'openid devices:read messages:send' }), [
        ...['default', 'devices:read', 'messages:send'],
      ]);
      assert.deepEqual(await granted({ scope: ['devices:read', 7] }), ['default', 'devices:read']);
      assert.deepEqual(await granted({ scope: { 'devices:read': true } }), ['default']);
    });

    test('a claim names the app; one that is not there is refused', async () => {
      assert.deepEqual(await granted({ carillon_app: 'default' }), ['default']);
      for (const app of ['no-such-app', '', 7, ['default']])
        assert.equal(await granted({ carillon_app: app }), undefined);
    });

    test('with admin and without an app it is an administrator; with an app it is that app and no administrator', async () => {
      assert.deepEqual(await granted({ scope: 'admin devices:read' }), [undefined, 'devices:read', 'admin']);
      assert.deepEqual(await granted({ scope: 'admin devices:read', carillon_app: 'default' }), [
        ...['default', 'devices:read'],
      ]);
    });

    test('the claims can have other names', async () => {
      const other = createJwtVerifier(
        api.database.db,
        { ...options, scopeClaim: 'permissions', appClaim: 'app' },
        jwks,
      );
      const found = await other(await jwt({ permissions: ['devices:read'], app: 'default', scope: 'admin' }));
      assert.deepEqual([found?.caller.app?.name, found?.caller.scopes], ['default', ['devices:read']]);
    });

    test('they work beside keys; while the keys of the issuer cannot be had, the answer is 503', async () => {
      const other = await createTestApi({ verifyJwt: verify });
      const scope = 'notifications:read';
      assert.equal((await ask(other.app, await jwt({ scope }))).status, 200);
      assert.equal((await ask(other.app, await jwt({}))).status, 403);
      assert.equal((await ask(other.app, await jwt({ scope, aud: 'other' }))).status, 401);
      assert.equal((await ask(other.app, other.key)).status, 200, 'keys go on working');
      const broken = createJwtVerifier(api.database.db, options, () => Promise.reject(new TypeError('fetch failed')));
      const away = await createTestApi({ verifyJwt: broken });
      assert.equal((await ask(away.app, await jwt({ scope }))).status, 503);
      await other.close();
      await away.close();
    });
  });
});
