import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/**
 * Drops whole weeks of messages and their outcomes that ended so many days ago, where nothing in them is pending; the counts stay. The
 * statement must not wait for long: it holds up all that read messages meanwhile.
 * @returns the first day of each
 */
export async function dropMessageWeeks(db: Kysely<Database>, days: number): Promise<string[]> {
  const { rows } = await sql<{ week: string }>`
    select * from drop_message_weeks(now() - make_interval(days => ${days})) as week
  `.execute(db);
  return rows.map(({ week }) => week);
}
