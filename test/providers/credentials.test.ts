import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { normaliseApnsKey } from '../../providers/apns/key.ts';
import { CredentialError } from '../../providers/credentials/credential-error.ts';
import { normaliseServiceAccount } from '../../providers/fcm/service-account.ts';

const pem = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string;
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ec = pem(p256.privateKey);
const rsaKeys = generateKeyPairSync('rsa', { modulusLength: 2048 });
const rsa = pem(rsaKeys.privateKey);
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const body = (text: string): string => text.replace(/-----[A-Z ]+-----|\n/g, '');

const account = {
  type: 'service_account',
  project_id: 'project-1',
  private_key_id: 'abc',
  private_key: rsa,
  client_email: 'sender@project-1.iam.gserviceaccount.com',
  token_uri: 'https://oauth2.googleapis.com/token',
};
const json = JSON.stringify(account, null, 2);

const apnsKey = (privateKey: string | Uint8Array) =>
  normaliseApnsKey({ privateKey, keyId: 'ABC123DEFG', teamId: 'TEAM123456' });

function refusal(run: () => unknown): CredentialError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof CredentialError, inspect(error));
    return error;
  }
  throw new assert.AssertionError({ message: 'was accepted' });
}

describe('an APNs key is accepted in every shape people have it in', () => {
  const shapes: Record<string, string | Uint8Array> = {
    'as downloaded': ec,
    'with literal \\n': ec.replaceAll('\n', '\\n'),
    'with doubled backslashes': ec.replaceAll('\n', '\\\\n'),
    'with quotes around': `"${ec.replaceAll('\n', '\\n')}"`,
    'with single quotes around': `'${ec}'`,
    'with CRLF': ec.replaceAll('\n', '\r\n'),
    'with a byte order mark and blank lines': `\uFEFF\n\n${ec}\n\n`,
    'all on one line': ec.replaceAll('\n', ' '),
    'all on one line without blanks': ec.replaceAll('\n', ''),
    'base64 of the file': base64(ec),
    'base64 of the file, wrapped': base64(ec).replace(/(.{64})/g, '$1\n'),
    'without a PEM frame': body(ec),
    'as bytes': Buffer.from(ec),
    'as DER': p256.privateKey.export({ type: 'pkcs8', format: 'der' }),
    'as SEC1 PEM': p256.privateKey.export({ type: 'sec1', format: 'pem' }) as string,
  };
  for (const [name, shape] of Object.entries(shapes)) {
    test(name, () => assert.equal(apnsKey(shape).privateKeyPem, ec));
  }
});

describe('a wrong kind of key is named, and its text is not repeated', () => {
  const wrong: Record<string, [string | Uint8Array, RegExp]> = {
    'an RSA key': [rsa, /RSA key of 2048 bits/],
    'an RSA key without frame': [body(rsa), /RSA key of 2048 bits/],
    'a key on another curve': [pem(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey), /secp384r1/],
    'an Ed25519 key': [pem(generateKeyPairSync('ed25519').privateKey), /type ed25519/],
    'a public key': [p256.publicKey.export({ type: 'spki', format: 'pem' }) as string, /a public key/],
    'a locked key': [
      p256.privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }) as string,
      /locked by a password/,
    ],
    'a service account file': [json, /a JSON file/],
    'base64 of a service account file': [base64(json), /a JSON file/],
    'a certificate': ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----', /a certificate/],
    'a .p12 file': [Buffer.from('308209a102010330820967060900000000', 'hex'), /\.p12/],
    'base64 of a .p12 file': [Buffer.from('308209a102010330820967060900000000', 'hex').toString('base64'), /\.p12/],
    'half of a key': [ec.slice(0, 100), /damaged/],
    'a word': ['secret!', /neither PEM nor base64/],
    nothing: ['  ', /empty/],
  };
  for (const [name, [shape, expected]] of Object.entries(wrong)) {
    test(name, () => {
      const error = refusal(() => apnsKey(shape));
      assert.match(error.message, expected);
      assert.equal(error.field, 'private_key');
      assert.ok(!inspect(error).includes(body(ec).slice(20, 60)));
      assert.ok(!inspect(error).includes(body(rsa).slice(100, 140)));
    });
  }

  test('key id and team id must have ten characters', () => {
    assert.equal(
      refusal(() => normaliseApnsKey({ privateKey: ec, keyId: 'short', teamId: 'TEAM123456' })).field,
      'key_id',
    );
    assert.equal(refusal(() => normaliseApnsKey({ privateKey: ec, keyId: 'ABC123DEFG', teamId: '' })).field, 'team_id');
  });
});

describe('a service account is accepted in every shape people have it in', () => {
  const shapes: Record<string, string | Uint8Array> = {
    'as downloaded': json,
    'on one line': JSON.stringify(account),
    'with literal \\n in the key, escaped once more': JSON.stringify({
      ...account,
      private_key: rsa.replaceAll('\n', '\\n'),
    }),
    'with CRLF': json.replaceAll('\n', '\r\n'),
    'with real line ends in the key': json.replaceAll('\\n', '\n'),
    'with quotes around': `'${json}'`,
    'as a JSON string': JSON.stringify(JSON.stringify(account)),
    'with literal \\n between the fields': json.replace(/\n/g, '\\n'),
    'base64 of the file': base64(json),
    'with a byte order mark': `\uFEFF${json}`,
    'with a key without PEM frame': JSON.stringify({ ...account, private_key: body(rsa) }),
    'with a key in quotes': JSON.stringify({ ...account, private_key: `"${rsa}"` }),
    'as bytes': Buffer.from(json),
  };
  for (const [name, shape] of Object.entries(shapes)) {
    test(name, () => {
      assert.deepEqual(normaliseServiceAccount(shape), {
        projectId: 'project-1',
        clientEmail: account.client_email,
        privateKeyPem: rsa,
        privateKeyId: 'abc',
        tokenUri: account.token_uri,
      });
    });
  }
});

describe('a service account that cannot send is refused with what it is', () => {
  const wrong: Record<string, [string, RegExp]> = {
    'an APNs key': [ec, /PEM file/],
    'google-services.json': [JSON.stringify({ project_info: {}, client: [] }), /google-services\.json/],
    'an OAuth client': [JSON.stringify({ installed: {} }), /OAuth client/],
    "a person's credential": [JSON.stringify({ ...account, type: 'authorized_user' }), /person/],
    'an old server key': ['AAAAabc:APA91bxyz', /old FCM API/],
    'an EC key inside': [JSON.stringify({ ...account, private_key: ec }), /EC key/],
    'no project': [JSON.stringify({ ...account, project_id: undefined }), /project_id/],
    'no e-mail': [JSON.stringify({ ...account, client_email: '' }), /client_email/],
    'a foreign token endpoint': [JSON.stringify({ ...account, token_uri: 'https://evil.example/token' }), /token_uri/],
    'half a file': [json.slice(0, 400), /damaged JSON/],
    'a word': ['secret!', /not JSON/],
  };
  for (const [name, [shape, expected]] of Object.entries(wrong)) {
    test(name, () => {
      const error = refusal(() => normaliseServiceAccount(shape));
      assert.match(error.message, expected);
      assert.ok(!inspect(error).includes(body(rsa).slice(100, 140)));
    });
  }

  test('a token endpoint on the allow-list is taken', () => {
    const shape = JSON.stringify({ ...account, token_uri: 'https://localhost:9000/token' });
    const allowed = { allowedTokenUris: ['https://localhost:9000/token'] };
    assert.equal(normaliseServiceAccount(shape, allowed).tokenUri, 'https://localhost:9000/token');
  });
});
