import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { providerMigrations } from '../../db/migrate.ts';
import { providerNames } from '../../domain/device.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase();
});
after(() => database.close());

test('wherever a provider is stored, every provider passes the check and no other name does', async () => {
  const { rows } = await sql<{ table: string; names: string[] | null }>`
    select c.table_name as table,
      (select array_agg(name[1] order by name[1])
        from pg_constraint k, regexp_matches(pg_get_constraintdef(k.oid), '''([^'']*)''', 'g') as name
        where k.conname = c.table_name || '_provider_check') as names
    from information_schema.columns c where c.table_schema = 'public' and c.column_name = 'provider'
    order by 1
  `.execute(database.db);
  const names = providerNames.toSorted();
  assert.deepEqual(
    rows,
    ['batches', 'devices', 'lanes', 'message_counts', 'provider_hosts'].map((table) => ({
      table,
      // Recipients without a device have none.
      names: table === 'message_counts' ? ['', ...names] : names,
    })),
  );
});

test('the migration that lets a provider in is one of those that are applied', async () => {
  const { rows } = await sql<{ name: string }>`select name from kysely_migration`.execute(database.db);
  const applied = new Set(rows.map(({ name }) => name));
  for (const name of providerNames) assert.ok(applied.has(providerMigrations[name]), name);
});
