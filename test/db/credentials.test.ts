import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import {
  countCredentialsByMasterKeyOfAllApps,
  findCredentialInUse,
  listCredentials,
  listExpiringCredentialsOfAllApps,
  noteCredentialRefusedOfAnyApp,
  noteCredentialUsedOfAnyApp,
  reencryptCredentialsOfAllApps,
  revokeCredential,
  storeCredential,
} from '../../db/credentials.ts';
import { createMasterKeys, type MasterKeys } from '../../db/master-keys.ts';
import { SealedTextError } from '../../db/sealed-text.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Actor } from '../../domain/actor.ts';
import type { NewCredential } from '../../domain/credential.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

const ringOf = (...ids: string[]): MasterKeys => createMasterKeys(ids.map((id) => ({ id, key: keys[id]! })))!;
const keys: Record<string, Uint8Array> = { a: randomBytes(32), b: randomBytes(32), c: randomBytes(32) };
const ring = ringOf('a');
const actor: Actor = { kind: 'operator', id: 'somebody', requestId: null, address: null };
const days = (count: number) => new Date(Date.now() + count * 86_400_000);

let database: TestDatabase;
let shop: number;

function credential(name: string, more: Partial<NewCredential> = {}): NewCredential {
  return {
    kind: 'apns_key',
    details: { key_id: name, team_id: 'TEAM123456' },
    secret: `secret of ${name}`,
    fingerprint: name,
    expiresAt: undefined,
    ...more,
  };
}

const store = async (appId: number, one: NewCredential, masterKeys = ring) =>
  (await inTransaction(database.db, (trx) => storeCredential(trx, actor, appId, one, masterKeys))).credential.id;
const inUse = (appId: number, provider: 'apns' | 'fcm' = 'apns', masterKeys: MasterKeys | undefined = ring) =>
  findCredentialInUse(database.db, masterKeys, appId, provider);
const list = (appId: number) => listCredentials(database.db, appId, { limit: 100 });
const audit = async () => {
  const rows = database.db.selectFrom('audit_entries').select(['app_id', 'action', 'target_id', 'changes']);
  return await rows.orderBy('id').execute();
};
const versionOf = async (appId: number) =>
  (await database.db.selectFrom('apps').select('version').where('id', '=', appId).executeTakeFirstOrThrow()).version;

before(async () => {
  database = await createTestDatabase();
  const app = await database.db.insertInto('apps').values({ name: 'shop' }).returning('id').executeTakeFirstOrThrow();
  shop = app.id;
});
beforeEach(async () => {
  await sql`delete from credentials`.execute(database.db);
  await sql`delete from audit_entries`.execute(database.db);
});
after(() => database.close());

describe('a stored credential', () => {
  test('is the one in use, with its secret, and of its own app alone', async () => {
    const id = await store(shop, credential('one'));
    assert.deepEqual(await inUse(shop), { id, ...credential('one') });
    assert.equal(await inUse(1), undefined);
    assert.equal(await inUse(shop, 'fcm'), undefined);
    assert.deepEqual(await list(1), []);
  });

  test('shows its secret nowhere: not in its row, not in the listing, not in the audit', async () => {
    await store(shop, credential('one'));
    const { rows } = await sql<{ row: string }>`select credentials::text as row from credentials`.execute(database.db);
    const told = JSON.stringify([rows, await list(shop), await audit()]);
    assert.ok(told.includes('one'));
    assert.ok(!told.includes('secret of'));
  });

  test('is stored once, however often and by however many at once', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => store(shop, credential('one'))));
    assert.equal(new Set(ids).size, 1);
    assert.equal((await list(shop)).length, 1);
    assert.deepEqual(
      (await audit()).map(({ action }) => action),
      ['credential.store'],
    );
    assert.notEqual(await store(1, credential('one')), ids[0]);
  });

  test('does not open in the row of another app', async () => {
    await store(shop, credential('one'));
    await store(1, credential('two'));
    await sql`update credentials set secret_jwe = (select secret_jwe from credentials where app_id = ${shop}) where app_id = 1`.execute(
      database.db,
    );
    await assert.rejects(inUse(1), SealedTextError);
  });

  test('does not open without its master key: the error says which one it is, or which setting is missing', async () => {
    await store(shop, credential('one'));
    await assert.rejects(inUse(shop, 'apns', ringOf('b')), /master key "a"/);
    await assert.rejects(findCredentialInUse(database.db, undefined, shop, 'apns'), /CARILLON_MASTER_KEYS is not set/);
  });

  test('opens again once it was stored again, after its master key was lost', async () => {
    const id = await store(shop, credential('one'));
    assert.equal(await store(shop, credential('one'), ringOf('b')), id);
    assert.equal((await inUse(shop, 'apns', ringOf('b')))?.secret, 'secret of one');
    assert.deepEqual(
      (await audit()).map(({ action }) => action),
      ['credential.store', 'credential.reseal'],
    );
  });
});

describe('of several credentials', () => {
  test('the newest is used; once it is revoked, the one before', async () => {
    const former = await store(shop, credential('former'));
    const newer = await store(shop, credential('newer'));
    assert.equal((await inUse(shop))?.id, newer);
    assert.deepEqual(
      (await list(shop)).map(({ id, isInUse }) => [id, isInUse]),
      [
        [newer, true],
        [former, false],
      ],
    );
    assert.ok(await revokeCredential(database.db, actor, shop, newer));
    assert.equal((await inUse(shop))?.id, former);
  });

  test('a key and a certificate take turns, and each provider has its own', async () => {
    await store(shop, credential('key'));
    const certificate = await store(shop, credential('certificate', { kind: 'apns_certificate', expiresAt: days(90) }));
    const account = await store(shop, credential('account', { kind: 'fcm_service_account' }));
    assert.equal((await inUse(shop))?.id, certificate);
    assert.equal((await inUse(shop, 'fcm'))?.id, account);
    assert.deepEqual(
      (await list(shop)).filter(({ isInUse }) => isInUse).map(({ id }) => id),
      [account, certificate],
    );
  });

  test('one that has expired is not used', async () => {
    const former = await store(shop, credential('former'));
    await store(shop, credential('certificate', { kind: 'apns_certificate', expiresAt: days(-1) }));
    assert.equal((await inUse(shop))?.id, former);
  });

  test('every change is one that workers see: the app has another version', async () => {
    const before = await versionOf(shop);
    const id = await store(shop, credential('one'));
    const stored = await versionOf(shop);
    assert.ok(stored > before);
    await noteCredentialUsedOfAnyApp(database.db, id);
    assert.equal(await versionOf(shop), stored);
    await revokeCredential(database.db, actor, shop, id);
    assert.ok((await versionOf(shop)) > stored);
  });

  test('the listing goes on after the last id of a page', async () => {
    const ids: string[] = [];
    for (const name of ['one', 'two', 'three']) ids.unshift(await store(shop, credential(name)));
    const page = await listCredentials(database.db, shop, { limit: 2 });
    const rest = await listCredentials(database.db, shop, { limit: 2, cursor: page.at(-1)!.id });
    assert.deepEqual(
      [page, rest].map((records) => records.map(({ id }) => id)),
      [ids.slice(0, 2), ids.slice(2)],
    );
  });
});

describe('a revoked credential', () => {
  test('has lost its secret, and a repeat changes nothing', async () => {
    const id = await store(shop, credential('one'));
    await revokeCredential(database.db, actor, shop, id);
    const [first] = await list(shop);
    assert.ok(first?.revokedAt);
    assert.ok(await revokeCredential(database.db, actor, shop, id));
    assert.deepEqual(await list(shop), [first]);
    const row = await database.db.selectFrom('credentials').select('secret_jwe').executeTakeFirstOrThrow();
    assert.equal(row.secret_jwe, '');
    assert.deepEqual(
      (await audit()).map(({ action, target_id: target, app_id: appId }) => [action, target, appId]),
      [
        ['credential.store', id, shop],
        ['credential.revoke', id, shop],
      ],
    );
  });

  test('cannot be told from one that never was by another app', async () => {
    const id = await store(shop, credential('one'));
    assert.equal(await revokeCredential(database.db, actor, 1, id), false);
    assert.equal((await inUse(shop))?.id, id);
  });

  test('may be stored again, as another one', async () => {
    const id = await store(shop, credential('one'));
    await revokeCredential(database.db, actor, shop, id);
    const again = await store(shop, credential('one'));
    assert.notEqual(again, id);
    assert.equal((await inUse(shop))?.id, again);
  });
});

test('use and refusal are noted once a minute', async () => {
  const id = await store(shop, credential('one'));
  await noteCredentialUsedOfAnyApp(database.db, id);
  await noteCredentialRefusedOfAnyApp(database.db, id, 'InvalidProviderToken');
  const [first] = await list(shop);
  assert.equal(first?.lastRefusal, 'InvalidProviderToken');
  assert.ok(first?.lastUsedAt && first.lastRefusedAt);
  await noteCredentialUsedOfAnyApp(database.db, id);
  await noteCredentialRefusedOfAnyApp(database.db, id, 'Forbidden');
  assert.deepEqual(await list(shop), [first]);
  await sql`update credentials set last_used_at = now() - interval '61 seconds', last_refused_at = now() - interval '61 seconds'`.execute(
    database.db,
  );
  await noteCredentialUsedOfAnyApp(database.db, id);
  await noteCredentialRefusedOfAnyApp(database.db, id, 'Forbidden');
  const [later] = await list(shop);
  assert.equal(later?.lastRefusal, 'Forbidden');
  assert.ok(Date.now() - later!.lastUsedAt!.getTime() < 30_000);
});

test('a certificate that expires is told of 30 days before, until a newer credential of the provider is there', async () => {
  const expiring = () => listExpiringCredentialsOfAllApps(database.db, 30);
  const certificate = (name: string, expiresAt: Date) => credential(name, { kind: 'apns_certificate', expiresAt });
  await store(shop, certificate('far', days(31)));
  assert.deepEqual(await expiring(), []);
  const id = await store(shop, certificate('near', days(29)));
  assert.deepEqual(
    (await expiring()).map((one) => [one.id, one.appName, one.kind, one.fingerprint]),
    [[id, 'shop', 'apns_certificate', 'near']],
  );
  await store(shop, credential('account', { kind: 'fcm_service_account' }));
  assert.equal((await expiring()).length, 1);
  const key = await store(shop, credential('key'));
  assert.deepEqual(await expiring(), []);
  await revokeCredential(database.db, actor, shop, key);
  assert.equal((await expiring()).length, 1);
});

describe('another first master key', () => {
  test('seals every secret anew, and from then on the former may go', async () => {
    for (let i = 0; i < 120; i++) await store(i % 2 === 0 ? shop : 1, credential(`credential ${i}`));
    await revokeCredential(database.db, actor, shop, await store(shop, credential('revoked')));
    assert.deepEqual([...(await countCredentialsByMasterKeyOfAllApps(database.db))], [['a', 120]]);

    const both = ringOf('b', 'a');
    assert.deepEqual(await reencryptCredentialsOfAllApps(database.db, actor, both), { resealed: 120, unreadable: [] });
    assert.deepEqual([...(await countCredentialsByMasterKeyOfAllApps(database.db))], [['b', 120]]);
    assert.equal((await inUse(shop, 'apns', ringOf('b')))?.secret, 'secret of credential 118');
    assert.deepEqual(await reencryptCredentialsOfAllApps(database.db, actor, both), { resealed: 0, unreadable: [] });
    const entries = (await audit()).filter(({ action }) => action === 'credentials.reencrypt');
    assert.deepEqual(
      entries.map(({ app_id: appId, target_id: target, changes }) => [appId, target, changes]),
      [[null, 'b', { credentials: 120 }]],
    );
  });

  test('leaves a secret that nobody can open as it is, and names its credential', async () => {
    const lost = await store(shop, credential('lost'), ringOf('c'));
    await store(shop, credential('kept'));
    const result = await reencryptCredentialsOfAllApps(database.db, actor, ringOf('b', 'a'));
    assert.deepEqual(result, { resealed: 1, unreadable: [lost] });
    assert.deepEqual(
      [...(await countCredentialsByMasterKeyOfAllApps(database.db))],
      [
        ['c', 1],
        ['b', 1],
      ],
    );
  });
});
