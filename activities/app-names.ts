import type { Kysely } from 'kysely';
import { findAppOfAnyApp } from '../db/apps.ts';
import type { Database } from '../db/schema.ts';

const known = new WeakMap<Kysely<Database>, Map<number, string>>();

/** What people call the app. Asked for once: a name never changes, and an id is never given twice. */
export async function appNameOf(db: Kysely<Database>, appId: number): Promise<string> {
  let names = known.get(db);
  if (names === undefined) {
    names = new Map();
    known.set(db, names);
  }
  const name = names.get(appId) ?? (await findAppOfAnyApp(db, appId))?.name;
  if (name === undefined) return 'deleted';
  names.set(appId, name);
  return name;
}
