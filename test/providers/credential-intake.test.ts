/** What a stored credential is made of: what is read, shown, told apart, and opened again. */
import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import type { CredentialKind } from '../../domain/credential.ts';
import type { JsonObject } from '../../domain/json.ts';
import { readSettings } from '../../domain/settings.ts';
import { normaliseApnsCertificate } from '../../providers/apns/certificate.ts';
import { CredentialError } from '../../providers/credentials/credential-error.ts';
import type { AppOfProvider, ProviderSurroundings } from '../../providers/description.ts';
import { configureProviders } from '../../providers/open.ts';
import { createApnsClientCertificate, createAuthority } from '../../simulator/certificates.ts';
import { InMemoryProviderTokenStore } from '../support/in-memory-token-store.ts';

const pem = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string;
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const bare = (text: string): string => text.replace(/-----[A-Z ]+-----|\n/g, '');
const now = new Date();

const ec = pem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey);
const rsa = pem(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
const authority = createAuthority('Some authority');
const { certificate, privateKey } = createApnsClientCertificate(authority, { apnsTopic: 'com.example.shop' });
const account = {
  type: 'service_account',
  project_id: 'project-1',
  private_key_id: 'abc',
  private_key: rsa,
  client_email: 'sender@project-1.iam.gserviceaccount.com',
};
const apnsKey = { private_key: ec, key_id: 'ABC123DEFG', team_id: 'TEAM123456' };

const shop: AppOfProvider = {
  name: 'shop',
  apnsTopic: 'com.example.shop',
  apnsEnvironment: 'sandbox',
  fcmProjectId: undefined,
};
const providerOf = (kind: CredentialKind, env: Record<string, string> = {}) =>
  readSettings(env, configureProviders)[kind === 'fcm_service_account' ? 'fcm' : 'apns'];
const read = (kind: CredentialKind, fields: JsonObject, app = shop, env = {}) =>
  providerOf(kind, env).read(kind, fields, app, now);

function refusal(run: () => unknown): CredentialError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof CredentialError, inspect(error));
    for (const key of [ec, rsa, privateKey]) assert.ok(!inspect(error).includes(bare(key).slice(100, 140)));
    return error;
  }
  throw new assert.AssertionError({ message: 'was accepted' });
}

describe('an APNs certificate is accepted in every shape people have it in', () => {
  const der = new X509Certificate(certificate).raw;
  const both = certificate + privateKey;
  const password = 'a password';
  const locked = createPrivateKey(privateKey).export({
    type: 'pkcs8',
    format: 'pem',
    cipher: 'aes-256-cbc',
    passphrase: password,
  });
  const shapes: Record<string, Parameters<typeof normaliseApnsCertificate>[0]> = {
    'certificate and key in one file': { certificate: both },
    'key first': { certificate: privateKey + certificate },
    'two files': { certificate, privateKey },
    'with its authority before it': { certificate: authority.certificate + both },
    'with attributes between the frames': { certificate: `Bag Attributes\n    friendlyName: x\n${both}` },
    'with literal \\n': { certificate: both.replaceAll('\n', '\\n') },
    'with quotes around': { certificate: `"${both.replaceAll('\n', '\\n')}"` },
    'with CRLF': { certificate: both.replaceAll('\n', '\r\n') },
    'with a byte order mark': { certificate: `\uFEFF${both}` },
    'all on one line': { certificate: both.replaceAll('\n', ' ') },
    'all on one line without blanks': { certificate: both.replaceAll('\n', '') },
    'base64 of the file': { certificate: base64(both) },
    'without a PEM frame': { certificate: bare(certificate), privateKey: bare(privateKey) },
    'base64 of each file': { certificate: base64(certificate), privateKey: base64(privateKey) },
    'as bytes': { certificate: Buffer.from(both) },
    'as DER': { certificate: der, privateKey },
    'with a locked key': { certificate, privateKey: String(locked), password },
    'with a locked key on one line': { certificate: (certificate + locked).replaceAll('\n', ' '), password },
  };
  const expected = normaliseApnsCertificate({ certificate: both }, now);
  for (const [name, shape] of Object.entries(shapes)) {
    test(name, () => {
      const found = normaliseApnsCertificate(shape, now);
      assert.equal(found.privateKeyPem, expected.privateKeyPem);
      assert.equal(found.apnsTopic, 'com.example.shop');
      assert.equal(
        new X509Certificate(found.certificatePem).fingerprint256,
        new X509Certificate(certificate).fingerprint256,
      );
    });
  }

  const wrong: Record<string, [Parameters<typeof normaliseApnsCertificate>[0], string, RegExp]> = {
    'an APNs key': [{ certificate: ec }, 'certificate', /a private key without its certificate/],
    'a service account': [{ certificate: JSON.stringify(account) }, 'certificate', /a JSON file/],
    'base64 of a service account': [{ certificate: base64(JSON.stringify(account)) }, 'certificate', /a JSON file/],
    'a request for a certificate': [
      { certificate: '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----' },
      'certificate',
      /a certificate request/,
    ],
    'a word': [{ certificate: 'secret!' }, 'certificate', /neither PEM nor base64/],
    nothing: [{ certificate: ' ' }, 'certificate', /an empty text/],
    'half a certificate': [{ certificate: certificate.slice(0, 200), privateKey }, 'certificate', /damaged/],
    'no key': [{ certificate }, 'private_key', /holds no private key/],
    'another key': [{ certificate, privateKey: rsa }, 'private_key', /does not belong/],
    'a locked key without a password': [{ certificate, privateKey: String(locked) }, 'password', /none is given/],
    'a locked key with another password': [
      { certificate, privateKey: String(locked), password: 'x' },
      'password',
      /does not open/,
    ],
  };
  for (const [name, [input, field, expected]] of Object.entries(wrong)) {
    test(`${name} is refused by its name`, () => {
      const error = refusal(() => normaliseApnsCertificate(input, now));
      assert.match(error.message, expected);
      assert.equal(error.field, field);
    });
  }
});

describe('what is stored of a credential', () => {
  test('an APNs key: its ids are shown, and its fingerprint follows from the public part and the ids', () => {
    const { secret, fingerprint, ...shown } = read('apns_key', { ...apnsKey, private_key: base64(ec) });
    assert.deepEqual(shown, {
      kind: 'apns_key',
      details: { key_id: 'ABC123DEFG', team_id: 'TEAM123456' },
      expiresAt: undefined,
    });
    assert.match(fingerprint, /^[0-9a-f]{64}$/);
    assert.equal(JSON.parse(secret).private_key, ec);
    assert.notEqual(read('apns_key', { ...apnsKey, key_id: 'ABC123DEFX' }).fingerprint, fingerprint);
  });

  test('a certificate: its topic, environments and expiry are shown, and the fingerprint that openssl shows', () => {
    const { secret, ...shown } = read('apns_certificate', { certificate, private_key: privateKey });
    const x509 = new X509Certificate(certificate);
    assert.deepEqual(shown, {
      kind: 'apns_certificate',
      details: { apns_topic: 'com.example.shop', environments: ['production', 'sandbox'] },
      fingerprint: x509.fingerprint256.replaceAll(':', '').toLowerCase(),
      expiresAt: new Date(x509.validTo),
    });
    assert.ok(JSON.parse(secret).private_key.includes('PRIVATE KEY'));
  });

  test('a service account, as an object or a text: its project and address are shown', () => {
    const one = read('fcm_service_account', { service_account: account });
    const { secret, fingerprint, ...shown } = one;
    assert.deepEqual(shown, {
      kind: 'fcm_service_account',
      details: { project_id: 'project-1', client_email: account.client_email, private_key_id: 'abc' },
      expiresAt: undefined,
    });
    assert.deepEqual(read('fcm_service_account', { service_account: base64(JSON.stringify(account)) }), one);
    const other = read('fcm_service_account', { service_account: account, project_id: 'project-2' });
    assert.equal(other.details.project_id, 'project-2');
    assert.notEqual(other.fingerprint, fingerprint);
  });

  const surroundings: ProviderSurroundings = {
    providerTokenStore: new InMemoryProviderTokenStore(),
    requestDeadlineMs: 1_000,
    proxyFor: () => undefined,
    logger: { debug() {}, info() {}, warn() {}, error() {} },
  };
  const all: [CredentialKind, JsonObject][] = [
    ['apns_key', apnsKey],
    ['apns_certificate', { certificate, private_key: privateKey }],
    ['fcm_service_account', { service_account: account }],
    ['fcm_service_account', { service_account: { ...account, private_key_id: undefined! } }],
  ];
  for (const [kind, fields] of all) {
    test(`${kind}: the secret opens a provider, and reads as the same credential`, async () => {
      const stored = read(kind, fields);
      assert.deepEqual(read(kind, JSON.parse(stored.secret)), stored);
      const provider = await providerOf(kind).open(stored, shop, surroundings);
      assert.ok(provider.credential.endsWith(stored.fingerprint.slice(0, 16)), provider.credential);
      await provider.close();
    });
  }

  test('an app without a bundle id cannot be opened: the error says what to set', async () => {
    const bareApp = { ...shop, apnsTopic: undefined };
    const stored = read('apns_key', apnsKey, bareApp);
    await assert.rejects(
      providerOf('apns_key').open(stored, bareApp, surroundings),
      /App shop has no bundle id. Set its apns_topic/,
    );
    const env = { APNS_TOPIC: 'com.example.other' };
    await assert.rejects(providerOf('apns_key', env).open(stored, bareApp, surroundings), CredentialError);
  });

  test('app `default` takes from the environment what its row does not say', async () => {
    const byDefault = { ...shop, name: 'default', apnsTopic: undefined };
    const env = { APNS_TOPIC: 'com.example.env', APNS_ENVIRONMENT: 'sandbox', FCM_PROJECT_ID: 'project-env' };
    const target = async (kind: CredentialKind, fields: JsonObject, app: AppOfProvider) => {
      const provider = await providerOf(kind, env).open(read(kind, fields, app), app, surroundings);
      const prepared = provider.prepare({
        notificationId: '0198a5b2-0000-7000-8000-000000000000',
        message: { title: 'x' },
      });
      await provider.close();
      return [prepared.target, provider.hostOf({ apnsEnvironment: null })];
    };
    const sandbox = 'api.sandbox.push.apple.com';
    assert.deepEqual(await target('apns_key', apnsKey, byDefault), ['com.example.env', sandbox]);
    assert.deepEqual(await target('apns_key', apnsKey, { ...shop, name: 'default', apnsEnvironment: 'production' }), [
      'com.example.shop',
      'api.push.apple.com',
    ]);
    const fcm = { service_account: account };
    assert.equal((await target('fcm_service_account', fcm, byDefault))[0], 'project-env');
    assert.equal((await target('fcm_service_account', fcm, shop))[0], 'project-1');
    assert.equal(
      (await target('fcm_service_account', fcm, { ...shop, fcmProjectId: 'project-app' }))[0],
      'project-app',
    );
  });
});

describe('a credential is refused, and the field is named', () => {
  const tests: Record<string, [CredentialKind, JsonObject, string, RegExp]> = {
    'a service account as an APNs key': [
      'apns_key',
      { ...apnsKey, private_key: JSON.stringify(account) },
      'private_key',
      /a JSON file \(a Google service account\?\)/,
    ],
    'an APNs key as a service account': [
      'fcm_service_account',
      { service_account: ec },
      'service_account',
      /a PEM file/,
    ],
    'a field of another kind': [
      'apns_key',
      { ...apnsKey, certificate },
      'certificate',
      /kind apns_key has no certificate/,
    ],
    'a missing field': ['apns_key', { private_key: ec, key_id: 'ABC123DEFG' }, 'team_id', /needs team_id/],
    'a number': ['apns_key', { ...apnsKey, key_id: 1234567890 }, 'key_id', /must be a text/],
    'a missing service account': [
      'fcm_service_account',
      { project_id: 'x' },
      'service_account',
      /needs service_account/,
    ],
    'a certificate of another app': [
      'apns_certificate',
      { certificate: createCertificate('com.example.other') },
      'certificate',
      /for com\.example\.other, and the app's apns_topic is com\.example\.shop/,
    ],
    'a token endpoint of somebody else': [
      'fcm_service_account',
      { service_account: { ...account, token_uri: 'https://evil.example/token' } },
      'token_uri',
      /token_uri/,
    ],
  };
  for (const [name, [kind, fields, field, expected]] of Object.entries(tests)) {
    test(name, () => {
      const error = refusal(() => read(kind, fields));
      assert.match(error.message, expected);
      assert.equal(error.field, field);
    });
  }

  test('a certificate for one push type of the app is none of another app', () => {
    const voip = { certificate: createCertificate('com.example.shop.voip') };
    assert.equal(read('apns_certificate', voip).details.apns_topic, 'com.example.shop.voip');
    assert.equal(read('apns_certificate', voip, { ...shop, apnsTopic: undefined }).kind, 'apns_certificate');
  });

  test('a token endpoint is taken that the environment names', () => {
    const service_account = { ...account, token_uri: 'https://localhost:9000/token' };
    const env = { FCM_TOKEN_URL: 'https://localhost:9000/token' };
    const stored = read('fcm_service_account', { service_account }, shop, env);
    // Not allowed any more when it is opened.
    assert.equal(refusal(() => read('fcm_service_account', JSON.parse(stored.secret))).field, 'token_uri');
  });
});

function createCertificate(apnsTopic: string): string {
  const made = createApnsClientCertificate(authority, { apnsTopic });
  return made.certificate + made.privateKey;
}
