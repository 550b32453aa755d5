import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** When finished books were first to go to this store: now, or by an earlier call. */
export async function noteBookStore(db: Kysely<Database>, name: string): Promise<Date> {
  await db
    .insertInto('book_stores')
    .values({ name })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const row = await db.selectFrom('book_stores').select('set_at').where('name', '=', name).executeTakeFirstOrThrow();
  return row.set_at;
}

/** Sends that ended from `since` on and whose books were not uploaded, in the order in which they ended; `except` are left out. */
export async function listUnexportedOfAllApps(
  db: Kysely<Database>,
  { since, except, limit }: { since: Date; except: string[]; limit: number },
): Promise<string[]> {
  const rows = await db
    .selectFrom('notifications')
    .select('id')
    .where('exported_at', 'is', null)
    .where('launched_at', 'is not', null)
    .where('finished_at', '>=', since)
    .where(sql<boolean>`id <> all (${except}::uuid[])`)
    .orderBy('finished_at')
    .limit(limit)
    .execute();
  return rows.map(({ id }) => id);
}

/** A repeat leaves the first instant. */
export async function noteExportOfAnyApp(db: Kysely<Database>, notificationId: string): Promise<void> {
  await db
    .updateTable('notifications')
    .set({ exported_at: sql`clock_timestamp()` })
    .where('id', '=', notificationId)
    .where('exported_at', 'is', null)
    .execute();
}
