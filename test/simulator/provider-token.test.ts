import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { test } from 'node:test';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { apnsHeaders, createProviderToken, send } from './clients.ts';
import { apnsBody, useSimulator } from './fixture.ts';

const fixture = useSimulator();
const device = apnsDeviceToken(1);
const now = () => Math.floor(Date.now() / 1000);

async function reasonFor(authorization: string | undefined): Promise<string> {
  const session = await fixture.open(fixture.simulator.apnsUrl);
  const answer = await fixture.push(session, device, { authorization });
  return `${answer.status} ${answer.body === '' ? '' : JSON.parse(answer.body).reason}`;
}
const token = (options = {}) => `bearer ${createProviderToken(fixture.simulator, options)}`;

test('no token, or an empty one, is missing', async () => {
  assert.equal(await reasonFor(undefined), '403 MissingProviderToken');
  assert.equal(await reasonFor('bearer'), '403 MissingProviderToken');
  assert.equal(await reasonFor('basic abcdefgh'), '403 MissingProviderToken');
});

test('a key, team or signature that is not ours is invalid', async () => {
  assert.equal(await reasonFor(token({ keyId: 'OTHERKEY01' })), '403 InvalidProviderToken');
  assert.equal(await reasonFor(token({ teamId: 'OTHERTEAM1' })), '403 InvalidProviderToken');
  // Key id and team id the wrong way round.
  const { apnsKeyId, apnsTeamId } = fixture.simulator.files;
  assert.equal(await reasonFor(token({ keyId: apnsTeamId, teamId: apnsKeyId })), '403 InvalidProviderToken');
  const [header, claims] = createProviderToken(fixture.simulator).split('.');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const data = Buffer.from(`${header}.${claims}`);
  const forged = sign('sha256', data, { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url');
  assert.equal(await reasonFor(`bearer ${header}.${claims}.${forged}`), '403 InvalidProviderToken');
  assert.equal(await reasonFor('bearer not-a-token'), '403 InvalidProviderToken');
});

test('a signature in DER form is invalid', async () => {
  const [header, claims] = createProviderToken(fixture.simulator).split('.');
  const der = sign('sha256', Buffer.from(`${header}.${claims}`), readFileSync(fixture.simulator.files.apnsKeyPath));
  assert.equal(await reasonFor(`bearer ${header}.${claims}.${der.toString('base64url')}`), '403 InvalidProviderToken');
});

test('a token over an hour old, or from the future, is expired', async () => {
  assert.equal(await reasonFor(token({ issuedAt: now() - 3500 })), '200 ');
  assert.equal(await reasonFor(token({ issuedAt: now() - 3700 })), '403 ExpiredProviderToken');
  assert.equal(await reasonFor(token({ issuedAt: now() + 3900 })), '403 ExpiredProviderToken');
});

test('age is measured by the simulator’s clock, also for a token seen before', async () => {
  const authorization = token();
  assert.equal(await reasonFor(authorization), '200 ');
  await fixture.control.setClock(65 * 60_000);
  assert.equal(await reasonFor(authorization), '403 ExpiredProviderToken');
});

test('a second change within 20 minutes on one connection is one too many', async () => {
  const session = await fixture.open(fixture.simulator.apnsUrl);
  const tokens = [0, 1, 2].map((age) => token({ issuedAt: now() - age }));
  const statuses: (number | undefined)[] = [];
  for (const authorization of [...tokens, tokens[1]!]) {
    statuses.push((await fixture.push(session, device, { authorization })).status);
  }
  // The token of the first change goes on being the one in use.
  assert.deepEqual(statuses, [200, 200, 429, 200]);
  await fixture.control.setClock(21 * 60_000);
  assert.equal((await fixture.push(session, device, { authorization: tokens[2]! })).status, 200);
});

test('a revoked key is invalid at once', async () => {
  await fixture.control.changeSettings({ revokedKeyIds: [fixture.simulator.files.apnsKeyId] });
  assert.equal(await reasonFor(token()), '403 InvalidProviderToken');
});

test('the ledger knows the tokens it has seen', async () => {
  const issuedAt = now() - 60;
  await reasonFor(token({ issuedAt }));
  const summary = await fixture.control.ledgerSummary();
  assert.equal(summary.jwts_seen, 1);
  assert.equal(summary.jwts[0]?.issuedAt, issuedAt);
});

test('a client certificate stands in for the token, within its limits', async (t) => {
  const { files, apnsUrl, apnsTopic } = fixture.simulator;
  const session = connect(apnsUrl, {
    ca: readFileSync(files.caCertificatePath),
    cert: readFileSync(files.apnsCertificatePath),
    key: readFileSync(files.apnsCertificateKeyPath),
  });
  t.after(() => session.destroy());
  await once(session, 'remoteSettings');
  const push = (changes: Record<string, string | undefined>) =>
    send(session, apnsHeaders(fixture.simulator, device, changes), apnsBody);
  assert.equal((await push({})).status, 200);
  assert.equal((await push({ 'apns-topic': undefined })).status, 200);
  const liveActivity = { 'apns-push-type': 'liveactivity', 'apns-topic': `${apnsTopic}.push-type.liveactivity` };
  assert.equal((await push(liveActivity)).body, '{"reason":"Forbidden"}');
  assert.equal((await push({ 'apns-topic': 'com.example.other' })).body, '{"reason":"TopicDisallowed"}');
});
