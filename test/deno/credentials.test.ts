import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, before, test } from 'node:test';
import { createMasterKeys } from '../../db/master-keys.ts';
import { createTestApi, type TestApi } from '../api/harness.ts';
import { legacyPkcs12, modernPkcs12 } from '../providers/pkcs12-fixtures.ts';

/** Keys and certificates are read by the runtime's own cryptography, which is not the same on Deno. */
let api: TestApi;
before(async () => {
  api = await createTestApi({ masterKeys: createMasterKeys([{ id: 'a', key: new Uint8Array(32).fill(1) }]) });
});
after(() => api.close());

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const pem = { type: 'pkcs8', format: 'pem' } as const;

const bodies = {
  apns_key: { private_key: ec.export(pem), key_id: 'ABC123DEFG', team_id: 'TEAM123456' },
  fcm_service_account: {
    service_account: {
      type: 'service_account',
      project_id: 'shop-4711',
      client_email: 'sender@shop-4711.iam.gserviceaccount.com',
      private_key: rsa.export(pem),
    },
  },
};

for (const [kind, body] of Object.entries(bodies)) {
  test(`${kind} is proven and stored once`, async () => {
    const answers = [];
    for (let i = 0; i < 2; i++) answers.push(await api.request('POST', '/v1/apps/default/credentials', body));
    assert.deepEqual(
      answers.map((answer) => [answer.status, answer.body.kind, answer.body.id]),
      [
        [201, kind, answers[0]!.body.id],
        [200, kind, answers[0]!.body.id],
      ],
    );
  });
}

test('a .p12 file of an old and of a new tool is the same certificate, and its bundle id is read', async () => {
  const fingerprints = new Set<string>();
  for (const file of [legacyPkcs12, modernPkcs12]) {
    const body = { certificate: file.toString('base64'), password: 'secret' };
    const answer = await api.request('POST', '/v1/apps/default/credentials', body);
    assert.ok(answer.status < 300, answer.text);
    assert.equal(answer.body.details.apns_topic, 'com.example.app');
    fingerprints.add(answer.body.fingerprint);
  }
  assert.equal(fingerprints.size, 1);
});
