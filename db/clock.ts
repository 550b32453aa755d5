import { type Kysely, sql } from 'kysely';
import type { StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/** Milliseconds since 1970 by PostgreSQL's clock when the statement came to it. As a text of its own, a row of any statement can carry it. */
export const statementTimeMs = '(extract(epoch from statement_timestamp()) * 1000)::text';

/** PostgreSQL's clock. Milliseconds since 1970. */
export async function readDatabaseClock(client: StatementClient): Promise<number> {
  const { rows } = await client.query<{ now: string }>(`select ${statementTimeMs} as now`);
  return Number(rows[0]!.now);
}

/** The same, for callers that have Kysely alone. */
export async function databaseNow(db: Kysely<Database>): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db);
  return rows[0]!.now;
}
