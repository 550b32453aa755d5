/** Credentials over HTTP: what is taken, what is told, and what a provider says before one is stored. */
import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import { insertApiKey } from '../../db/api-keys.ts';
import { findCredentialInUse } from '../../db/credentials.ts';
import { createMasterKeys } from '../../db/master-keys.ts';
import type { Logger } from '../../domain/logger.ts';
import { Settings } from '../../domain/settings.ts';
import { configureProviders } from '../../providers/open.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { legacyPkcs12 } from '../providers/pkcs12-fixtures.ts';
import { type Answer, createTestApi, type TestApi } from './harness.ts';

const masterKeys = createMasterKeys([{ id: 'test', key: new Uint8Array(32).fill(7) }])!;
const logged: string[] = [];
const note = (fields: object, text: string) => logged.push(JSON.stringify(fields), text);
const log: Logger = { debug: note, info: note, warn: note, error: note };

let simulator: Simulator;
let control: SimulatorControl;
let api: TestApi;
/** What the simulator's account has: as Apple and Google hand them out. */
let apnsKey: { private_key: string; key_id: string; team_id: string };
let serviceAccount: string;
let certificate: string;
let certificateKey: string;

const path = '/v1/apps/shop/credentials';
let key: string;

before(async () => {
  simulator = await startSimulator();
  control = new SimulatorControl(simulator.controlUrl);
  const { files } = simulator;
  apnsKey = {
    private_key: readFileSync(files.apnsKeyPath, 'utf8'),
    key_id: files.apnsKeyId,
    team_id: files.apnsTeamId,
  };
  serviceAccount = readFileSync(files.fcmServiceAccountPath, 'utf8');
  certificate = readFileSync(files.apnsCertificatePath, 'utf8');
  certificateKey = readFileSync(files.apnsCertificateKeyPath, 'utf8');
  const urls = {
    APNS_URL: simulator.apnsUrl,
    APNS_SANDBOX_URL: simulator.apnsSandboxUrl,
    FCM_URL: simulator.fcmUrl,
    FCM_TOKEN_URL: simulator.oauthTokenUrl,
  };
  api = await createTestApi({
    ...{ log, masterKeys },
    providers: configureProviders(new Settings(urls)),
    providerNetwork: { ca: readFileSync(files.caCertificatePath, 'utf8'), requestDeadlineMs: 300 },
  });
  const { db } = api.database;
  const app = await db
    .insertInto('apps')
    .values({ name: 'shop', apns_topic: simulator.apnsTopic })
    .returning('id')
    .executeTakeFirstOrThrow();
  key = await insertApiKey(db, { appId: app.id, name: 'shop', scopes: ['credentials:write'] });
});
beforeEach(async () => {
  await sql`delete from credentials`.execute(api.database.db);
  await sql`delete from provider_tokens`.execute(api.database.db);
});
afterEach(() => control.resetFaults());
after(async () => {
  await api.close();
  await simulator.close();
});

/** All that came back, to be searched for secrets at the end. */
const answered: string[] = [];

async function request(method: string, url: string, body?: unknown): Promise<Answer> {
  const answer = await api.request(method, url, body, { authorization: `Bearer ${key}` });
  answered.push(answer.text);
  return answer;
}

const post = (body: unknown, query = '') => request('POST', path + query, body);
const list = async () => (await request('GET', path)).body.credentials;

async function refused(body: unknown, status: number, code: string, field?: string, query = ''): Promise<string> {
  const answer = await post(body, query);
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.body.code, code);
  assert.equal(answer.body.field, field);
  assert.deepEqual(await list(), []);
  return answer.body.detail;
}

describe('a credential is stored', () => {
  test('an APNs key: what is public of it is told, and workers send with it', async () => {
    const { status, body } = await post({ kind: 'apns_key', ...apnsKey });
    assert.equal(status, 201);
    const { id, fingerprint, created_at: createdAt, activated_at: activatedAt, ...rest } = body;
    assert.match(fingerprint, /^[0-9a-f]{64}$/);
    assert.ok(createdAt && activatedAt);
    assert.deepEqual(rest, {
      kind: 'apns_key',
      provider: 'apns',
      details: { key_id: apnsKey.key_id, team_id: apnsKey.team_id },
      in_use: true,
      expires_at: null,
      expires_soon: false,
      last_used_at: null,
      last_refused_at: null,
      last_refusal: null,
      revoked_at: null,
    });
    assert.deepEqual(await list(), [body]);
    const { app_id: appId } = await api.database.db
      .selectFrom('credentials')
      .select('app_id')
      .executeTakeFirstOrThrow();
    const inUse = await findCredentialInUse(api.database.db, masterKeys, appId, 'apns');
    assert.ok(inUse);
    assert.equal(inUse.id, id);
    assert.equal(JSON.parse(inUse.secret).private_key, apnsKey.private_key);
  });

  test('in other shapes, and without its kind where the fields tell it', async () => {
    const bodies: [string, unknown][] = [
      ['apns_key', { ...apnsKey, private_key: apnsKey.private_key.replaceAll('\n', '\\n') }],
      ['apns_certificate', { certificate: certificate + certificateKey }],
      ['apns_certificate', { certificate: Buffer.from(certificate).toString('base64'), private_key: certificateKey }],
      ['fcm_service_account', { service_account: JSON.parse(serviceAccount) }],
      ['fcm_service_account', { service_account: serviceAccount }],
    ];
    for (const [kind, body] of bodies) {
      const answer = await post(body);
      assert.ok(answer.status === 201 || answer.status === 200, answer.text);
      assert.equal(answer.body.kind, kind);
    }
    assert.equal((await list()).length, 3);
  });

  test('twice is once: the repeat is answered by the same, with 200', async () => {
    const first = await post(apnsKey);
    const again = await post({ ...apnsKey, private_key: Buffer.from(apnsKey.private_key).toString('base64') });
    assert.equal(again.status, 200);
    assert.deepEqual(again.body, first.body);
    const rows = api.database.db.selectFrom('audit_entries').select(['action', 'changes', 'actor_kind']);
    const entries = await rows.where('target_id', '=', first.body.id).execute();
    assert.deepEqual(entries, [
      {
        action: 'credential.store',
        changes: { kind: 'apns_key', fingerprint: first.body.fingerprint, details: first.body.details },
        actor_kind: 'key',
      },
    ]);
  });

  test('a certificate that ends within 30 days is told as such', async () => {
    const { body } = await post({ certificate: certificate + certificateKey });
    assert.equal(body.expires_soon, false);
    await sql`update credentials set expires_at = now() + interval '29 days'`.execute(api.database.db);
    const [soon] = await list();
    assert.deepEqual([soon.expires_soon, soon.in_use], [true, true]);
    await sql`update credentials set expires_at = now() - interval '1 day'`.execute(api.database.db);
    const [expired] = await list();
    assert.deepEqual([expired.expires_soon, expired.in_use], [true, false]);
  });
});

describe('a credential is revoked', () => {
  test('it is not used any more, the one before is, and a repeat is harmless', async () => {
    const former = (await post({ certificate: certificate + certificateKey })).body.id;
    const newer = (await post(apnsKey)).body.id;
    for (let i = 0; i < 2; i++) assert.equal((await request('DELETE', `${path}/${newer}`)).status, 204);
    const listed = await list();
    assert.deepEqual(
      listed.map((one: { id: string; in_use: boolean; revoked_at: string | null }) => [
        one.id,
        one.in_use,
        one.revoked_at !== null,
      ]),
      [
        [newer, false, true],
        [former, true, false],
      ],
    );
  });

  test('of another app, or none at all, is 404', async () => {
    const { id } = (await post(apnsKey)).body;
    for (const url of [
      `/v1/apps/default/credentials/${id}`,
      `${path}/0198a5b2-0000-7000-8000-000000000000`,
      `${path}/x`,
    ]) {
      assert.equal((await request('DELETE', url)).status, 404);
    }
    const ofDefault = await api.request('DELETE', `/v1/apps/default/credentials/${id}`);
    assert.equal(ofDefault.status, 404);
    assert.equal((await list())[0].revoked_at, null);
  });
});

describe('what cannot be stored is refused, and the field is named', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' });
  const tests: Record<string, [() => unknown, string, string]> = {
    'an empty body': [() => ({}), 'kind', 'invalid_input'],
    'a field that is unknown': [() => ({ ...apnsKey, secret: 'x' }), 'secret', 'invalid_input'],
    'an unknown kind': [() => ({ kind: 'web_push', ...apnsKey }), 'kind', 'invalid_input'],
    'a key that is a number': [() => ({ ...apnsKey, private_key: 1 }), 'private_key', 'invalid_input'],
    'a service account that is a list': [() => ({ service_account: [] }), 'service_account', 'invalid_input'],
    'a service account as an APNs key': [
      () => ({ ...apnsKey, private_key: serviceAccount }),
      'private_key',
      'credential_invalid',
    ],
    'an APNs key as a service account': [
      () => ({ service_account: apnsKey.private_key }),
      'service_account',
      'credential_invalid',
    ],
    'an RSA key as an APNs key': [() => ({ ...apnsKey, private_key: rsa }), 'private_key', 'credential_invalid'],
    'a key without its id': [
      () => ({ private_key: apnsKey.private_key, team_id: apnsKey.team_id }),
      'key_id',
      'credential_invalid',
    ],
    'a field of another kind': [
      () => ({ kind: 'fcm_service_account', ...apnsKey }),
      'private_key',
      'credential_invalid',
    ],
    'a wrong password': [
      () => ({ certificate: legacyPkcs12.toString('base64'), password: 'x' }),
      'password',
      'credential_invalid',
    ],
    'a certificate of another app': [
      () => ({ certificate: legacyPkcs12.toString('base64'), password: 'secret' }),
      'certificate',
      'credential_invalid',
    ],
    'a token endpoint of somebody else': [
      () => ({ service_account: { ...JSON.parse(serviceAccount), token_uri: 'https://evil.example/token' } }),
      'token_uri',
      'credential_invalid',
    ],
  };
  for (const [name, [body, field, code]] of Object.entries(tests)) {
    test(name, async () => {
      assert.ok((await refused(body(), 422, code, field)).length > 10);
    });
  }

  test('without a master key nothing is stored, and the setting is named', async () => {
    const bare = await createTestApi();
    try {
      const answer = await bare.request('POST', '/v1/apps/default/credentials', apnsKey);
      assert.equal(answer.status, 409);
      assert.equal(answer.body.code, 'no_master_key');
      assert.match(answer.body.detail, /CARILLON_MASTER_KEYS/);
      assert.deepEqual((await bare.request('GET', '/v1/apps/default/credentials')).body.credentials, []);
    } finally {
      await bare.close();
    }
  });
});

describe('with ?verify=provider', () => {
  const verify = '?verify=provider';

  test('a good one of each kind is stored, and no device got anything', async () => {
    await control.resetLedger();
    for (const body of [apnsKey, { certificate: certificate + certificateKey }, { service_account: serviceAccount }]) {
      const answer = await post(body, verify);
      assert.equal(answer.status, 201, answer.text);
    }
    const ledger = await control.ledgerSummary();
    assert.equal(ledger.received, 3);
    assert.equal(ledger.accepted, 0);
    assert.equal(ledger.protocol_errors, 0);
    const [, , toFcm] = await control.recentRequests();
    assert.equal(JSON.parse(toFcm!.body).validate_only, true);
  });

  test('the provider token that it took is the one that workers go on with', async () => {
    await control.resetLedger();
    for (let i = 0; i < 3; i++) await post(apnsKey, verify);
    assert.equal((await api.database.db.selectFrom('provider_tokens').selectAll().execute()).length, 1);
    const { jwts } = await control.ledgerSummary();
    assert.equal(jwts.length, 1);
  });

  const refusals: Record<string, [() => unknown, string, RegExp]> = {
    'a key that Apple does not know': [
      () => ({
        ...apnsKey,
        private_key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
          type: 'pkcs8',
          format: 'pem',
        }),
      }),
      'private_key',
      /InvalidProviderToken/,
    ],
    'a team id that belongs to another key': [
      () => ({ ...apnsKey, team_id: 'OTHERTEAM1' }),
      'private_key',
      /InvalidProviderToken/,
    ],
    'a key that Google does not know': [
      () => ({
        service_account: {
          ...JSON.parse(serviceAccount),
          private_key: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
            type: 'pkcs8',
            format: 'pem',
          }),
        },
      }),
      'service_account',
      /invalid_grant/,
    ],
    'a project that the account may not send for': [
      () => ({ service_account: serviceAccount, project_id: 'another-project' }),
      'project_id',
      /The provider said [A-Z_]+\. /,
    ],
  };
  for (const [name, [body, field, expected]] of Object.entries(refusals)) {
    test(`${name}: the provider's reason is told, and nothing is stored`, async () => {
      assert.match(await refused(body(), 422, 'credential_invalid', field, verify), expected);
    });
  }

  test('a revoked key is refused', async () => {
    await control.changeSettings({ revokedKeyIds: [apnsKey.key_id] });
    assert.match(await refused(apnsKey, 422, 'credential_invalid', 'private_key', verify), /InvalidProviderToken/);
  });

  const reasons: [number, string, string][] = [
    [400, 'TopicDisallowed', 'apns_topic'],
    [400, 'MissingTopic', 'apns_topic'],
    [400, 'DeviceTokenNotForTopic', 'apns_topic'],
    [403, 'BadCertificate', 'private_key'],
    [403, 'BadEnvironmentKeyIdInToken', 'apns_environment'],
    [403, 'Forbidden', 'private_key'],
  ];
  for (const [status, reason, field] of reasons) {
    test(`${reason} refuses it by ${field}`, async () => {
      await control.addRule({ provider: 'apns' }, { type: 'respond', status, reason });
      const detail = await refused(apnsKey, 422, 'credential_invalid', field, verify);
      assert.ok(detail.includes(reason), detail);
    });
  }

  for (const reason of ['BadDeviceToken', 'Unregistered']) {
    test(`${reason} is about the device token: the credential is good`, async () => {
      await control.addRule(
        { provider: 'apns' },
        { type: 'respond', status: reason === 'Unregistered' ? 410 : 400, reason },
      );
      assert.equal((await post(apnsKey, verify)).status, 201);
    });
  }

  test('an app without a bundle id is told to set one', async () => {
    await sql`update apps set apns_topic = null where name = 'shop'`.execute(api.database.db);
    try {
      const detail = await refused(apnsKey, 422, 'credential_invalid', 'apns_topic', verify);
      assert.match(detail, /Set its apns_topic/);
    } finally {
      await sql`update apps set apns_topic = ${simulator.apnsTopic} where name = 'shop'`.execute(api.database.db);
    }
  });

  const silences: Record<string, () => Promise<unknown>> = {
    'no answer': () => control.addRule({}, { type: 'stall' }),
    'no connection': () => control.changeSettings({ admission: 'refuse' }),
    'an unavailable service': () => control.addRule({}, { type: 'respond', status: 503, reason: 'ServiceUnavailable' }),
    'a page of a proxy': () => control.addRule({}, { type: 'html', status: 502 }),
    'a page of a proxy that calls the request bad': () => control.addRule({}, { type: 'html', status: 400 }),
    'too many provider tokens': () =>
      control.addRule({}, { type: 'respond', status: 429, reason: 'TooManyProviderTokenUpdates' }),
  };
  for (const [name, arrange] of Object.entries(silences)) {
    test(`${name} says nothing about the credential: 503, and nothing is stored`, async () => {
      await arrange();
      await refused(apnsKey, 503, 'provider_unreachable', undefined, verify);
    });
  }

  test('Google without a token endpoint is out of reach too', async () => {
    await control.setOauth({ fault: '503' });
    await refused({ service_account: serviceAccount }, 503, 'provider_unreachable', undefined, verify);
  });
});

test('no answer and no line of the log holds a secret', async () => {
  await post(apnsKey, '?verify=provider');
  await post({ ...apnsKey, private_key: serviceAccount });
  await post({ service_account: serviceAccount.slice(0, -40) });
  await post({ certificate: certificate + certificateKey, password: 'pass-word-1' });
  await list();
  const { rows } = await sql<{ row: string }>`
    select credentials::text as row from credentials union all select audit_entries::text from audit_entries
      union all select provider_tokens::text from provider_tokens`.execute(api.database.db);
  const told = [...answered, ...logged, ...rows.map(({ row }) => row)].join('\n').replaceAll('\\n', '');
  assert.ok(told.includes(apnsKey.key_id));
  assert.ok(logged.length > 0);
  const secrets = [apnsKey.private_key, certificateKey, JSON.parse(serviceAccount).private_key as string];
  for (const secret of secrets) {
    // Any piece of the base64, and the raw number inside.
    const base64 = secret.replace(/-----[A-Z ]+-----|\s/g, '');
    for (let at = 40; at + 24 < base64.length; at += 24) assert.ok(!told.includes(base64.slice(at, at + 24)));
    const { d } = createPrivateKey(secret).export({ format: 'jwk' });
    assert.ok(!told.includes(d!));
  }
  assert.ok(!told.includes('pass-word-1'));
  const { jwts } = await control.ledgerSummary();
  assert.ok(jwts.length > 0);
  for (const { authorization } of await control.recentRequests()) {
    if (authorization) assert.ok(!told.includes(authorization));
  }
});
