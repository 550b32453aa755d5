import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { createMasterKeys } from '../../db/master-keys.ts';
import { insertWebhook } from '../../db/webhooks.ts';
import { workerActor } from '../../domain/actor.ts';
import { loadConfig } from '../../domain/config.ts';
import { createApnsClientCertificate, createAuthority } from '../../simulator/certificates.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { simulatorEnvironment } from '../../simulator/launch.ts';
import { startSimulator } from '../../simulator/simulator.ts';
import { createOperator, masterKey, type Operator, type Ran } from './operator.ts';

const pem = (type: 'ec' | 'rsa') =>
  (type === 'ec'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : generateKeyPairSync('rsa', { modulusLength: 2048 })
  ).privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const secretOf = (text: string) => text.replace(/-----[A-Z ]+-----|\n/g, '').slice(60, 100);

const ring = masterKey('first');
let operator: Operator;
let directory: string;
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(path.join(directory, name), content);
  return path.join(directory, name);
};

before(async () => {
  operator = await createOperator({ CARILLON_MASTER_KEYS: ring });
  directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-admin-'));
  await operator.json(['apps', 'create', 'shop', '--apns-topic', 'com.example.shop']);
});
after(async () => {
  rmSync(directory, { recursive: true });
  await operator.close();
});

test('credentials come from files and standard input, and no part of their secrets is printed, recorded or stored', async () => {
  const { json, run, database } = operator;
  const key = pem('ec');
  const account = {
    type: 'service_account',
    project_id: 'shop-4711',
    client_email: 'a@shop-4711.iam.gserviceaccount.com',
  };
  const rsa = pem('rsa');
  const { certificate, privateKey } = createApnsClientCertificate(createAuthority('An authority'), {
    apnsTopic: 'com.example.shop',
  });
  const add = ['credentials', 'add', '--app', 'shop'];
  const printed: Ran[] = [
    await run([...add, '--apns-key', '-', '--key-id', 'ABC123DEFG', '--team-id', 'TEAM123456'], { input: key }),
    await run([...add, '--apns-certificate', file('both.pem', certificate + privateKey), '--json']),
    await run([
      ...add,
      '--fcm-service-account',
      file('account.json', JSON.stringify({ ...account, private_key: rsa })),
    ]),
    await run(['credentials', 'list', '--app', 'shop']),
    await run(['credentials', 'list', '--app', 'shop', '--json']),
    await run(['audit', '--app', 'shop', '--json']),
  ];
  for (const { status, stderr } of printed) assert.equal(status, 0, stderr);
  assert.match(printed[0]!.stdout, /^[\da-f-]{36}\n$/, 'the id, for a script');
  assert.match(
    printed[3]!.stdout,
    /fcm_service_account +shop-4711 .* in use\n.*apns_certificate .* in use\n.*apns_key +ABC123DEFG TEAM123456 .* kept\n$/,
  );

  const rows = await database.db.selectFrom('credentials').selectAll().execute();
  const everything = JSON.stringify([printed, rows, await operator.audit()]);
  for (const secret of [key, rsa, privateKey]) {
    assert.ok(secret.includes('PRIVATE KEY') && !everything.includes(secretOf(secret)));
    assert.ok(!everything.includes(secretOf(secret.replaceAll('\n', '\\n'))));
  }

  const [newest] = await json(['credentials', 'list', '--app', 'shop']);
  assert.deepEqual(await json(['credentials', 'revoke', '--app', 'shop', newest.id]), { id: newest.id });
  assert.match((await run(['credentials', 'list', '--app', 'shop'])).stdout, /fcm_service_account .* revoked\n/);
});

test('a credential that cannot be is refused by the name of its option, and its text is not repeated', async () => {
  const { run } = operator;
  const add = ['credentials', 'add', '--app', 'shop'];
  const ids = ['--key-id', 'ABC123DEFG', '--team-id', 'TEAM123456'];
  const rsa = pem('rsa');
  const wrong: [string[], string, RegExp][] = [
    [add, '', /^--apns-key, --apns-certificate or --fcm-service-account: one of them/],
    [[...add, '--apns-key', '-', ...ids], rsa, /^--apns-key: This is an RSA key/],
    [[...add, '--apns-key', '-', ...ids], '', /^--apns-key: there is nothing in it/],
    [[...add, '--apns-key', pem('ec'), ...ids], '', /^--apns-key: the file cannot be read \(\w+\)\. Name a file, or -/],
    [[...add, '--apns-key', '-', '--key-id', 'ABC123DEFG'], pem('ec'), /^--team-id: /],
    [[...add, '--fcm-service-account', '-'], '{"type":"authorized_user"}', /^--fcm-service-account: /],
    [[...add, '--apns-key', '-', '--fcm-service-account', '-'], '', /cannot be used with option/],
    [[...add, '--apns-certificate', '-', '--password-file', '-'], '', /^--password-file: standard input holds/],
  ];
  for (const [args, input, sentence] of wrong) {
    const { status, stdout, stderr } = await run(args, { input });
    assert.deepEqual([status, stdout], [2, ''], stderr);
    assert.match(stderr, sentence);
    assert.doesNotMatch(stderr, /[A-Za-z0-9+/]{50}/, 'no key');
  }
  const without = await run([...add, '--apns-key', '-', ...ids], {
    input: pem('ec'),
    env: { CARILLON_MASTER_KEYS: '' },
  });
  assert.equal(without.status, 1);
  assert.match(without.stderr, /^CARILLON_MASTER_KEYS is not set: [^\n]*master-keys generate[^\n]*\n$/);
});

test('with --verify the provider is asked first, and what it refuses is not stored', async (t) => {
  const simulator = await startSimulator({ apnsTopics: ['com.example.shop'] });
  t.after(() => simulator.close());
  const { apnsKeyPath, apnsKeyId, apnsTeamId } = simulator.files;
  const env = simulatorEnvironment(simulator);
  const add = ['credentials', 'add', '--app', 'shop', '--key-id', apnsKeyId, '--team-id', apnsTeamId, '--verify'];
  const refused = await operator.run([...add, '--apns-key', '-'], { input: pem('ec'), env });
  assert.deepEqual([refused.status, refused.stdout], [2, '']);
  assert.match(refused.stderr, /^--apns-key: The provider said InvalidProviderToken\./);
  const taken = await operator.run([...add, '--apns-key', apnsKeyPath, '--json'], { env });
  assert.equal(taken.status, 0, taken.stderr);
  const listed = await operator.json(['credentials', 'list', '--app', 'shop']);
  assert.deepEqual([listed[0].id, listed[0].in_use], [JSON.parse(taken.stdout).id, true]);
  const { accepted } = await new SimulatorControl(simulator.controlUrl).ledgerSummary();
  assert.equal(accepted, 0, 'nothing is sent');
});

test('what one master key has sealed another seals anew, and then the first may go', async () => {
  const { run, json, database } = operator;
  const generated = (await run(['master-keys', 'generate'])).stdout.trim();
  assert.match(generated, /^\d{4}-\d\d-\d\d-[\da-f]{6}:[\w+/]{43}=$/);
  const [id] = generated.split(':');
  const input = pem('ec');
  await run(
    ['credentials', 'add', '--app', 'shop', '--apns-key', '-', '--key-id', 'NEW123DEFG', '--team-id', 'TEAM123456'],
    { input },
  );
  const hook = { url: 'https://shop.example/', types: ['webhook.disabled'], filter: {} };
  const keys = createMasterKeys(loadConfig({ DATABASE_URL: 'x', CARILLON_MASTER_KEYS: ring }).masterKeys)!;
  await insertWebhook(database.db, workerActor, 1, hook, keys, 20);
  const env = { CARILLON_MASTER_KEYS: `${generated},${ring}` };
  const before = JSON.parse((await run(['master-keys', 'status', '--json'], { env })).stdout);
  assert.deepEqual([before[0].id, before[0].credentials, before[0].state, before[1].state], [id, 0, 'seals', 'opens']);
  const { resealed } = JSON.parse((await run(['master-keys', 'reencrypt', '--json'], { env })).stdout);
  const { credentials } = before[1];
  assert.deepEqual([resealed, before[1].webhooks], [credentials + 1, 1]);
  assert.ok(credentials > 0);
  assert.deepEqual(JSON.parse((await run(['master-keys', 'reencrypt', '--json'], { env })).stdout), { resealed: 0 });
  assert.match(
    (await run(['master-keys', 'status'], { env })).stdout,
    new RegExp(`\\n${id} +${credentials} +1 +seals\\nfirst +0 +0 +opens\\n$`),
  );

  // The first key alone opens nothing now.
  assert.deepEqual((await json(['master-keys', 'status'])).at(-1), { id, credentials, webhooks: 1, state: 'missing' });
  const stuck = await run(['master-keys', 'reencrypt']);
  assert.deepEqual(
    [stuck.status, /^0 secrets are sealed anew. No key opens these: .*webhook /.test(stuck.stderr)],
    [1, true],
  );
  const told = await database.db
    .selectFrom('audit_entries')
    .selectAll()
    .where('action', '=', 'credentials.reencrypt')
    .execute();
  assert.deepEqual(
    told.map(({ target_id }) => target_id),
    [id],
  );
});
