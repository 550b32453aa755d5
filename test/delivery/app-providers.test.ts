/** Providers of several apps, opened from stored credentials, against a real PostgreSQL and a simulator over TLS. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { AppProviders, type AppProvidersOptions, type ProviderLease } from '../../activities/app-providers.ts';
import { findAppOfAnyApp } from '../../db/apps.ts';
import { listCredentials, revokeCredential, storeCredential } from '../../db/credentials.ts';
import { createMasterKeys } from '../../db/master-keys.ts';
import { resumeNotification } from '../../db/notification-moves.ts';
import { createProviderTokenStore } from '../../db/provider-tokens.ts';
import type { Actor } from '../../domain/actor.ts';
import type { App } from '../../domain/app.ts';
import type { CredentialKind } from '../../domain/credential.ts';
import type { JsonObject } from '../../domain/json.ts';
import { Settings } from '../../domain/settings.ts';
import { configureProviders } from '../../providers/open.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { until } from '../support/until.ts';
import { createDeliveryBench, type DeliveryBench } from './harness.ts';

let bench: DeliveryBench;
let simulator: Simulator;
let control: SimulatorControl;
let options: AppProvidersOptions;
const masterKeys = createMasterKeys([{ id: 'test', key: new Uint8Array(32).fill(7) }])!;
const actor: Actor = { kind: 'operator', id: 'test', requestId: null, address: null };

before(async () => {
  bench = await createDeliveryBench();
  simulator = await startSimulator();
  control = new SimulatorControl(simulator.controlUrl);
  const configured = configureProviders(
    new Settings({ APNS_URL: simulator.apnsUrl, FCM_URL: simulator.fcmUrl, FCM_TOKEN_URL: simulator.oauthTokenUrl }),
  );
  const { log } = bench.worker().deps;
  options = {
    ...{ db: bench.database.db, masterKeys, configured, log },
    surroundings: {
      providerTokenStore: createProviderTokenStore(bench.database.db),
      requestDeadlineMs: 5_000,
      proxyFor: () => undefined,
      logger: log,
      ca: readFileSync(simulator.files.caCertificatePath, 'utf8'),
    },
  };
});
after(async () => {
  await bench.close();
  await simulator.close();
});

let lastApp = 0;

async function insert(name: string, apnsTopic: string | null): Promise<App> {
  const { db } = bench.database;
  const { id } = await db
    .insertInto('apps')
    .values({ name, apns_topic: apnsTopic })
    .returning('id')
    .executeTakeFirstOrThrow();
  return (await findAppOfAnyApp(db, id))!;
}

async function createApp(): Promise<App> {
  lastApp += 1;
  return insert(`app-${lastApp}`, simulator.apnsTopic);
}

async function store(app: App, kind: CredentialKind, fields: JsonObject): Promise<string> {
  const provider = kind === 'fcm_service_account' ? 'fcm' : 'apns';
  const read = options.configured[provider].read(kind, fields, app, new Date());
  return (await storeCredential(bench.database.db, actor, app.id, read, masterKeys)).credential.id;
}

function storeKey(app: App): Promise<string> {
  const { apnsKeyPath, apnsKeyId, apnsTeamId } = simulator.files;
  const private_key = readFileSync(apnsKeyPath, 'utf8');
  return store(app, 'apns_key', { private_key, key_id: apnsKeyId, team_id: apnsTeamId });
}

function storeCertificate(app: App): Promise<string> {
  const { apnsCertificatePath, apnsCertificateKeyPath } = simulator.files;
  const certificate = readFileSync(apnsCertificatePath, 'utf8');
  return store(app, 'apns_certificate', { certificate, private_key: readFileSync(apnsCertificateKeyPath, 'utf8') });
}

/** Well-formed, and nothing that the provider knows. */
function storeWrongKey(app: App): Promise<string> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const private_key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  return store(app, 'apns_key', { private_key, key_id: 'WRONGKEY01', team_id: 'WRONGTEAM1' });
}

function open(): AppProviders {
  return new AppProviders(options);
}

async function lease(providers: AppProviders, app: App): Promise<ProviderLease> {
  const found = await providers.lease(app.id, 'apns');
  assert.ok(!('fault' in found), 'fault' in found ? found.fault : '');
  return found;
}

describe('a provider of an app', () => {
  test('is opened once for all runs, and closed when another credential is stored, after the last of them', async (t) => {
    const providers = open();
    t.after(() => providers.close());
    const app = await createApp();
    const first = await storeKey(app);
    const [a, b] = await Promise.all([lease(providers, app), lease(providers, app)]);
    assert.equal(a.provider, b.provider);
    assert.equal(a.credentialId, first);
    const second = await storeCertificate(app);
    assert.equal(a.replaced.aborted, false);
    await providers.look();
    assert.equal(a.replaced.aborted, true);
    const c = await lease(providers, app);
    assert.equal(c.credentialId, second);
    assert.notEqual(c.provider, a.provider);
    const content = { notificationId: '0198c0de-0001-8abc-8def-00000000002a', message: { title: 'Hello' } };
    const device = { deviceId: 1, deviceToken: apnsDeviceToken(1, 'accept'), apnsEnvironment: null };
    // What is under way goes on by the former one.
    assert.equal((await a.provider.send(a.provider.prepare(content), device)).kind, 'accepted');
    a.release();
    b.release();
    assert.equal((await c.provider.send(c.provider.prepare(content), device)).kind, 'accepted');
    c.release();
  });

  test('follows a change of the bundle id, and a credential that is revoked', async (t) => {
    const providers = open();
    t.after(() => providers.close());
    const app = await createApp();
    const first = await storeKey(app);
    const before = await lease(providers, app);
    before.release();
    await sql`update apps set apns_topic = 'com.example.other' where id = ${app.id}`.execute(bench.database.db);
    await providers.look();
    const after = await lease(providers, app);
    assert.notEqual(after.provider, before.provider);
    after.release();
    await revokeCredential(bench.database.db, actor, app.id, first);
    await providers.look();
    assert.deepEqual(await providers.lease(app.id, 'apns'), {
      fault: `App ${app.name} has no credential for apns: store one, then resume.`,
    });
    await storeKey(app);
    (await lease(providers, app)).release();
  });

  test('says what is missing: a credential, a bundle id, the master key', async () => {
    const bare = await insert('bare', null);
    const fault = async (providers: AppProviders, app: App) => {
      const found = await providers.lease(app.id, 'apns');
      return 'fault' in found ? found.fault : '';
    };
    assert.match(await fault(open(), bare), /App bare has no credential for apns/);
    await storeKey(bare);
    assert.match(await fault(open(), bare), /apns_topic/);
    const app = await createApp();
    await storeKey(app);
    assert.match(await fault(new AppProviders({ ...options, masterKeys: undefined }), app), /CARILLON_MASTER_KEYS/);
    const gone = { ...app, id: 4_711 };
    assert.match(await fault(open(), gone), /gone/);
  });

  test('is not held open by an app that sends nothing', async (t) => {
    const providers = new AppProviders({ ...options, idleMs: 0 });
    t.after(() => providers.close());
    const app = await createApp();
    await storeKey(app);
    const held = await lease(providers, app);
    await providers.look();
    assert.equal((await lease(providers, app)).provider, held.provider);
    assert.equal(held.replaced.aborted, false);
  });
});

describe('a send', () => {
  async function sendOf(app: App, devices: number) {
    const send = await bench.launch({
      devices,
      appId: app.id,
      tokenOf: (n) => apnsDeviceToken(app.id * 100_000 + n, 'accept'),
    });
    return { send, batch: send.batches[0]! };
  }

  test('goes through a rotation: no device fails, none is in doubt, none is sent to twice', async (t) => {
    const providers = open();
    t.after(() => providers.close());
    const app = await createApp();
    const former = await storeKey(app);
    const { send, batch } = await sendOf(app, 4_000);
    const worker = bench.worker({ source: providers });
    await control.changeSettings({ answersPerSecond: 3_000 });
    const delivering = worker.deliverToEnd(batch);
    const accepted = async () => (await control.ledgerSummary(send.id)).accepted;
    await until(async () => (await accepted()) > 500);
    const next = await storeCertificate(app);
    await providers.look();
    await until(async () => (await accepted()) > 2_000);
    await revokeCredential(bench.database.db, actor, app.id, former);
    await providers.look();
    await control.changeSettings({ answersPerSecond: 0 });
    await delivering;
    await send.checkBooks({ accepted: 4_000 });
    assert.equal((await send.rows()).filter((row) => row.inDoubt).length, 0);
    assert.equal((await control.ledgerSummary(send.id)).repeats, 0);
    const used = await listCredentials(bench.database.db, app.id, { limit: 10 });
    assert.ok(used.every(({ lastUsedAt }) => lastUsedAt !== undefined));
    assert.deepEqual(
      used.map(({ id, isInUse }) => [id, isInUse]),
      [
        [next, true],
        [former, false],
      ],
    );
  });

  test('of an app with a wrong key halts and names it, while another app sends on; a right one and resume finish it', async (t) => {
    const providers = open();
    t.after(() => providers.close());
    const [healthy, broken] = [await createApp(), await createApp()];
    await storeKey(healthy);
    const wrong = await storeWrongKey(broken);
    const [good, bad] = [await sendOf(healthy, 2_000), await sendOf(broken, 2_000)];
    const worker = bench.worker({ source: providers, concurrentBatches: 2 });
    const [, halted] = await Promise.all([worker.deliverToEnd(good.batch), worker.deliverToEnd(bad.batch)]);
    await good.send.checkBooks({ accepted: 2_000 });
    assert.equal(halted.status, 'stopped');
    const { halt } = await bad.send.read();
    assert.equal(halt?.reason, 'credentials');
    assert.ok(halt.detail.includes(wrong), halt.detail);
    const [listed] = await listCredentials(bench.database.db, broken.id, { limit: 1 });
    assert.match(listed?.lastRefusal ?? '', /refused the provider token/);
    await storeKey(broken);
    await providers.look();
    await resumeNotification(bench.database.db, broken.id, bad.send.id);
    await worker.deliverToEnd(bad.batch);
    await bad.send.checkBooks({ accepted: 2_000 });
  });
});
