import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Kysely, sql } from 'kysely';
import { readCommandLine } from '../domain/command-line.ts';
import { loadConfig } from '../domain/config.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { findAppByName } from './apps.ts';
import { connect } from './connect.ts';
import { describeDatabaseError } from './database-error.ts';
import type { Database } from './schema.ts';

/** Run as a program (`npm run api-key -- [name]`), this file makes one more key and prints it. */

/**
 * Where `npm start` says which database it runs on, so that a lost key can be replaced without looking for the database's
 * address and password.
 */
export const localDatabaseFile = fileURLToPath(new URL('../.carillon/database-url', import.meta.url));

interface ApiKey {
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
    const app = await findAppByName(trx, 'default');
    return insertApiKey(trx, { appId: app!.id, name: 'first key', scopes: ['*'] });
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

function hashApiKey(plainKey: string): Buffer {
  return createHash('sha256').update(plainKey).digest();
}

if (import.meta.main) {
  const usage = `npm run api-key -- [name]

  Makes one more key of the API and prints it, in the database of DATABASE_URL, or of \`npm start\` while that runs.`;
  const { positionals, refuse } = readCommandLine(usage, {}, 1);
  const [name = 'made by hand'] = positionals;
  const isLocal = !process.env.DATABASE_URL && existsSync(localDatabaseFile);
  if (!isLocal && !process.env.DATABASE_URL) refuse('DATABASE_URL is not set, and `npm start` does not run here.');
  const url = isLocal ? readFileSync(localDatabaseFile, 'utf8') : loadConfig(process.env).databaseUrl;
  const { db } = connect(url, { maxConnections: 1, applicationName: 'carillon-api-keys' });
  try {
    const app = await findAppByName(db, 'default');
    console.log(await insertApiKey(db, { appId: app!.id, name, scopes: ['*'] }));
  } catch (error) {
    console.error(`No key was made: ${describeDatabaseError(error)}.`);
    process.exitCode = 1;
  } finally {
    await db.destroy();
  }
}
