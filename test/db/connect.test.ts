import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { connect, transactionWithClient } from '../../db/connect.ts';
import { isTransientDatabaseError } from '../../db/database-error.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase({ maxConnections: 2 });
});
after(() => database.close());

/** What a restart of PostgreSQL does to a connection on which a statement runs. */
const endOwnSession = sql`select pg_terminate_backend(pg_backend_pid())`;

test('a connection that PostgreSQL ends under a statement fails that statement; the process lives, the pool goes on', async () => {
  const { db, pool } = database;
  const isTransient = (error: unknown) => isTransientDatabaseError(error);
  await assert.rejects(endOwnSession.execute(db), isTransient);
  await assert.rejects(
    db.transaction().execute((trx) => endOwnSession.execute(trx)),
    isTransient,
  );
  await assert.rejects(
    transactionWithClient(pool, (trx) => endOwnSession.execute(trx)),
    isTransient,
  );
  const { rows } = await sql<{ one: number }>`select 1 as one`.execute(db);
  assert.deepEqual(rows, [{ one: 1 }]);
});

test('whatever the database has as session defaults, instants, numbers and texts are read and written as ever', async () => {
  const { pool, url, close } = await createTestDatabase();
  const name = new URL(url).pathname.slice(1);
  const defaults = {
    DateStyle: "'German, DMY'",
    IntervalStyle: "'sql_standard'",
    TimeZone: "'Asia/Kolkata'",
    bytea_output: "'escape'",
    extra_float_digits: '-10',
    array_nulls: 'off',
    standard_conforming_strings: 'off',
    transform_null_equals: 'on',
    default_transaction_isolation: "'serializable'",
    default_transaction_deferrable: 'on',
    search_path: "'pg_catalog'",
  };
  for (const [setting, value] of Object.entries(defaults)) {
    await pool.query(`alter database ${name} set ${setting} = ${value}`);
  }
  const { pool: fresh } = connect(url, { maxConnections: 1 });
  const read = () =>
    fresh.query(`select timestamptz '2026-02-03T04:05:06.789Z' as instant, '\\xff41'::bytea as bytes, '{1,null}'::int[] as list,
      0.1::float8 + 0.2::float8 as number, 'a\\b' as text, null = null as compared, date_trunc('day', timestamptz '2026-02-03T22:00Z') as day,
      current_setting('transaction_isolation') as isolation, current_schema() as schema, interval '1 day 2 hours'::text as span,
      (select count(*) from apps) as apps`);
  const expected = {
    instant: new Date('2026-02-03T04:05:06.789Z'),
    bytes: Buffer.from([0xff, 0x41]),
    list: [1, null],
    number: 0.30000000000000004,
    text: 'a\\b',
    compared: null,
    day: new Date('2026-02-03T00:00:00Z'),
    isolation: 'read committed',
    schema: 'public',
    span: '1 day 02:00:00',
    apps: 1,
  };
  assert.deepEqual((await read()).rows, [expected]);
  await fresh.query('reset all');
  assert.deepEqual((await read()).rows, [expected], 'also after a pooler has reset the session');
  await fresh.end();
  await close();
});

test('a schema that the URL asks for is used', async () => {
  await database.pool.query('create schema elsewhere');
  const url = new URL(database.url);
  url.searchParams.set('options', '-c search_path=elsewhere');
  const { pool } = connect(url.href, { maxConnections: 1 });
  const { rows } = await pool.query("select current_schema() as schema, current_setting('DateStyle') as dates");
  assert.deepEqual(rows, [{ schema: 'elsewhere', dates: 'ISO, MDY' }]);
  await pool.end();
});
