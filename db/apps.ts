import type { Kysely } from 'kysely';
import type { Database } from './schema.ts';

/** App `default` exists from the first migration on. */
export function findAppByName(db: Kysely<Database>, name: string): Promise<{ id: number } | undefined> {
  return db.selectFrom('apps').select('id').where('name', '=', name).executeTakeFirst();
}
