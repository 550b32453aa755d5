import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAssertion, postAssertion } from './clients.ts';
import { useSimulator } from './fixture.ts';

const fixture = useSimulator();
const now = () => Math.floor(Date.now() / 1000);

async function grant(options = {}): Promise<{ status: number; json: Record<string, unknown> }> {
  const answer = await postAssertion(fixture.simulator, await createAssertion(fixture.simulator, options));
  return { status: answer.status, json: JSON.parse(answer.body) };
}

test('a correct assertion gets an opaque token, and each is counted', async () => {
  const first = await grant();
  const second = await grant();
  assert.equal(first.status, 200);
  assert.equal(first.json.token_type, 'Bearer');
  assert.equal(first.json.expires_in, 3599);
  assert.match(String(first.json.access_token), /^ya29\.c\.[\w-]+$/);
  assert.notEqual(first.json.access_token, second.json.access_token);
  assert.equal((await fixture.control.ledgerSummary()).oauth_mints, 2);
});

test('Google’s own audience is taken too', async () => {
  assert.equal((await grant({ audience: 'https://oauth2.googleapis.com/token' })).status, 200);
});

test('what is wrong with an assertion is told as Google tells it', async () => {
  const cases: [object, string, RegExp][] = [
    [{ issuer: 'nobody@example.org' }, 'invalid_grant', /account not found/],
    [{ audience: 'https://example.org/token' }, 'invalid_grant', /aud/],
    [{ scope: 'https://www.googleapis.com/auth/drive' }, 'invalid_scope', /scope/],
    [{ issuedAt: now() - 7200 }, 'invalid_grant', /short-lived token \(60 minutes\)/],
    [{ issuedAt: now() + 3900 }, 'invalid_grant', /short-lived token \(60 minutes\)/],
    [{ expiresAt: now() + 7200 }, 'invalid_grant', /short-lived token \(60 minutes\)/],
  ];
  for (const [options, error, description] of cases) {
    const { status, json } = await grant(options);
    assert.equal(status, 400, JSON.stringify(options));
    assert.equal(json.error, error);
    assert.match(String(json.error_description), description);
  }
  assert.equal((await fixture.control.ledgerSummary()).oauth_mints, 0);
});

test('a forged signature, no assertion and another grant type are refused', async () => {
  const assertion = await createAssertion(fixture.simulator);
  const forged = `${assertion.slice(0, -8)}AAAAAAAA`;
  assert.match((await postAssertion(fixture.simulator, forged)).body, /Invalid JWT Signature/);
  assert.match((await postAssertion(fixture.simulator, '')).body, /invalid_grant/);
  assert.match((await postAssertion(fixture.simulator, assertion, 'password')).body, /unsupported_grant_type/);
});

test('life and faults of the endpoint are set by the control API', async () => {
  await fixture.control.setOauth({ expiresInSeconds: 20 });
  assert.equal((await grant()).json.expires_in, 20);
  const assertion = await createAssertion(fixture.simulator);
  const expected = [
    ['invalid_grant', 400, /invalid_grant/],
    ['429', 429, /./],
    ['503', 503, /./],
    ['html', 502, /<html/],
    ['wrong_json', 200, /^\{"access_token":$/],
  ] as const;
  for (const [fault, status, body] of expected) {
    await fixture.control.setOauth({ fault });
    const answer = await postAssertion(fixture.simulator, assertion);
    assert.equal(answer.status, status, fault);
    assert.match(answer.body, body);
  }
  await fixture.control.setOauth({ fault: 'no_expiry' });
  assert.equal((await grant()).json.expires_in, undefined);
  await fixture.control.setOauth({ fault: null });
  assert.equal((await grant()).status, 200);
  await assert.rejects(fixture.control.setOauth({ fault: 'nonsense' as never }), /400/);
});
