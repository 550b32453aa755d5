import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { transactionWithClient } from '../../db/connect.ts';
import { isTransientDatabaseError } from '../../db/retry-database.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase({ maxConnections: 2 });
});
after(() => database.close());

/** What a restart of PostgreSQL does to a connection on which a statement runs. */
const endOwnSession = sql`select pg_terminate_backend(pg_backend_pid())`;

test('B35: a connection that PostgreSQL ends under a statement fails that statement; the process lives, the pool goes on', async () => {
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
