import { createHash, randomBytes } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import { loadConfig } from '../domain/config.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { connect } from './connect.ts';
import type { Database } from './schema.ts';

/** Run as a program (`node db/api-keys.ts [name]`), this file makes one more key and prints it. */

export interface ApiKey {
  id: string;
  appId: number;
  name: string;
  /** `*`: everything. */
  scopes: string[];
}

/**
 * Makes the key of the first start, for app `default`. Undefined when any key exists. Several processes may call this at
 * once: one of them gets the key. The plain key is returned here once and stored nowhere.
 */
export function ensureFirstApiKey(db: Kysely<Database>): Promise<string | undefined> {
  return db.transaction().execute(async (trx) => {
    await sql`lock table api_keys in exclusive mode`.execute(trx);
    const existing = await trx.selectFrom('api_keys').select('id').limit(1).executeTakeFirst();
    if (existing) return undefined;
    const app = await trx.selectFrom('apps').select('id').where('name', '=', 'default').executeTakeFirstOrThrow();
    return insertApiKey(trx, { appId: app.id, name: 'first key', scopes: ['*'] });
  });
}

/** Returns the plain key: `ck_` and 256 random bits. Only its SHA-256 is stored. */
export async function insertApiKey(
  db: Kysely<Database>,
  input: { appId: number; name: string; scopes: string[] },
): Promise<string> {
  const plainKey = `ck_${randomBytes(32).toString('base64url')}`;
  await db
    .insertInto('api_keys')
    .values({
      id: uuidV7(),
      app_id: input.appId,
      name: input.name,
      key_hash: hashApiKey(plainKey),
      scopes: input.scopes,
    })
    .execute();
  return plainKey;
}

/**
 * Undefined for keys that never were or are revoked. Found by hash, so the time it takes says nothing about the key. Notes that
 * the key was used; callers keep what they found for a few seconds.
 */
export async function findApiKey(db: Kysely<Database>, plainKey: string): Promise<ApiKey | undefined> {
  const row = await db
    .updateTable('api_keys')
    .set({ last_used_at: sql<Date>`now()` })
    .where('key_hash', '=', hashApiKey(plainKey))
    .where('revoked_at', 'is', null)
    .returning(['id', 'app_id', 'name', 'scopes'])
    .executeTakeFirst();
  return row && { id: row.id, appId: row.app_id, name: row.name, scopes: row.scopes };
}

export function hashApiKey(plainKey: string): Buffer {
  return createHash('sha256').update(plainKey).digest();
}

if (import.meta.main) {
  const { db } = connect(loadConfig(process.env).databaseUrl, {
    maxConnections: 1,
    applicationName: 'carillon-api-keys',
  });
  const app = await db.selectFrom('apps').select('id').where('name', '=', 'default').executeTakeFirstOrThrow();
  console.log(await insertApiKey(db, { appId: app.id, name: process.argv[2] ?? 'made by hand', scopes: ['*'] }));
  await db.destroy();
}
