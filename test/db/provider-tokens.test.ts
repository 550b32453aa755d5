import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import { createProviderTokenStore, forgetOldProviderTokensOfAllApps } from '../../db/provider-tokens.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

const owner = { fingerprint: 'key-1', sealingKey: new Uint8Array(32).fill(1) };
const maxAgeMs = 45 * 60_000;

let database: TestDatabase;
let minted = 0;
const mint = async () => {
  await new Promise((resolve) => setTimeout(resolve, 20));
  return { token: `token-${++minted}`, issuedAt: new Date() };
};
const getOrCreate = (refused?: string, olderThanMs = maxAgeMs) =>
  createProviderTokenStore(database.db).getOrCreate(owner, olderThanMs, mint, refused);
const age = (interval: string) =>
  sql`update provider_tokens set updated_at = clock_timestamp() - ${interval}::interval`.execute(database.db);

before(async () => {
  database = await createTestDatabase();
});
beforeEach(async () => {
  minted = 0;
  await sql`delete from provider_tokens`.execute(database.db);
});
after(() => database.close());

describe('the provider token that all workers share', () => {
  test('is minted once, however many ask at once', async () => {
    const records = await Promise.all(Array.from({ length: 20 }, () => getOrCreate()));
    assert.deepEqual([...new Set(records.map(({ token }) => token))], ['token-1']);
    assert.equal(minted, 1);
  });

  test('is kept while it is young, and renewed once by the first worker that asks', async () => {
    await getOrCreate();
    await age('44 minutes');
    assert.equal((await getOrCreate()).token, 'token-1');
    await age('46 minutes');
    const records = await Promise.all(Array.from({ length: 20 }, () => getOrCreate()));
    assert.deepEqual([...new Set(records.map(({ token }) => token))], ['token-2']);
  });

  test("has its age from the database's clock", async () => {
    await getOrCreate();
    await age('10 minutes');
    const { ageMs } = await getOrCreate();
    assert.ok(ageMs >= 600_000 && ageMs < 605_000, String(ageMs));
  });

  test('is replaced once when it is the refused one', async () => {
    await getOrCreate();
    const records = await Promise.all(Array.from({ length: 20 }, () => getOrCreate('token-1')));
    assert.deepEqual([...new Set(records.map(({ token }) => token))], ['token-2']);
    assert.equal((await getOrCreate('token-1')).token, 'token-2');
    assert.equal(minted, 2);
  });

  test('is replaced when its age cannot be known: the clock was set back', async () => {
    await getOrCreate();
    await age('-2 hours');
    assert.equal((await getOrCreate()).token, 'token-2');
    assert.equal((await getOrCreate()).token, 'token-2');
  });

  test('stays as it was when minting fails', async () => {
    await getOrCreate();
    await age('50 minutes');
    const fail = () => Promise.reject(new Error('no key'));
    await assert.rejects(createProviderTokenStore(database.db).getOrCreate(owner, maxAgeMs, fail), /no key/);
    await age('1 minute');
    assert.equal((await getOrCreate()).token, 'token-1');
  });

  test('of another key is another one', async () => {
    await getOrCreate();
    const other = await createProviderTokenStore(database.db).getOrCreate(
      { ...owner, fingerprint: 'key-2' },
      maxAgeMs,
      mint,
    );
    assert.equal(other.token, 'token-2');
  });

  test('is stored sealed: the row does not show it', async () => {
    const { token } = await getOrCreate();
    const { rows } = await sql<{ row: string }>`select provider_tokens::text as row from provider_tokens`.execute(
      database.db,
    );
    assert.equal(rows.length, 1);
    assert.ok(!rows[0]!.row.includes(token));
  });

  test('counts as none where it does not open: it was sealed by another credential, changed, or copied here', async () => {
    await getOrCreate();
    const withOtherKey = { ...owner, sealingKey: new Uint8Array(32).fill(2) };
    const other = await createProviderTokenStore(database.db).getOrCreate(withOtherKey, maxAgeMs, mint);
    assert.equal(other.token, 'token-2');
    await sql`update provider_tokens set token_jwe = 'damaged'`.execute(database.db);
    assert.equal((await getOrCreate()).token, 'token-3');
    const copy = { ...owner, fingerprint: 'key-2' };
    await sql`insert into provider_tokens select 'key-2', token_jwe, issued_at, updated_at from provider_tokens`.execute(
      database.db,
    );
    assert.equal((await createProviderTokenStore(database.db).getOrCreate(copy, maxAgeMs, mint)).token, 'token-4');
  });

  test('is forgotten a day after it was made', async () => {
    await getOrCreate();
    await forgetOldProviderTokensOfAllApps(database.db);
    assert.equal((await getOrCreate()).token, 'token-1');
    await age('25 hours');
    await forgetOldProviderTokensOfAllApps(database.db);
    assert.deepEqual(await database.db.selectFrom('provider_tokens').selectAll().execute(), []);
  });
});
