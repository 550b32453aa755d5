import { type Kysely, sql } from 'kysely';

/** After 0007 is committed: a call of the function from before, that waited for this lock, would miss the column and fail. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table batches drop column first_dispatched_at`.execute(db);
}
