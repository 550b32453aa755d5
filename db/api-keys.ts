import { createHash, randomBytes } from 'node:crypto';
import { type Kysely, type Selectable, sql, type Transaction } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import { type App, defaultAppName } from '../domain/app.ts';
import { appScopes, type Scope } from '../domain/scopes.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { findAppByName, findAppOfAnyApp } from './apps.ts';
import { recordChange } from './audit-entries.ts';
import { databaseNow } from './clock.ts';
import type { Database } from './schema.ts';

/** Never with the key itself. */
export interface ApiKey {
  id: string;
  name: string;
  scopes: Scope[];
  /** Undefined: as the settings say. */
  requestsPerSecond: number | undefined;
  createdAt: Date;
  /** Undefined: it lives until it is revoked. */
  expiresAt: Date | undefined;
  /** To the minute. */
  lastUsedAt: Date | undefined;
  revokedAt: Date | undefined;
}

/** A key that is valid now. */
interface ValidApiKey extends Pick<ApiKey, 'id' | 'scopes' | 'requestsPerSecond'> {
  /** Undefined: an administrator's. */
  app: App | undefined;
  /** Undefined: never. By the database's clock. */
  expiresInMs: number | undefined;
}

interface NewApiKey {
  /** Null: an administrator's, whose scopes have `admin` among them; no other key may have it. */
  appId: number | null;
  name: string;
  scopes: readonly Scope[];
  expiresAt?: Date | undefined;
  requestsPerSecond?: number | undefined;
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
    const app = await findAppByName(trx, defaultAppName);
    return insertApiKey(trx, { appId: app!.id, name: 'first key', scopes: appScopes });
  });
}

/** Returns the plain key, which is stored nowhere. */
export async function insertApiKey(db: Kysely<Database>, input: NewApiKey): Promise<string> {
  return (await insert(db, input)).plainKey;
}

/** The same by somebody, for a transaction, with the key as it is listed. */
export async function createApiKey(
  trx: Transaction<Database>,
  actor: Actor,
  input: NewApiKey,
): Promise<{ key: ApiKey; plainKey: string }> {
  const { appId } = input;
  const { row, plainKey } = await insert(trx, input);
  const { id, name, scopes, expires_at, requests_per_second } = row;
  const changes = { name, scopes, expires_at: expires_at?.toISOString() ?? null, requests_per_second };
  await recordChange(trx, actor, { appId, action: 'key.create', target: { kind: 'key', id }, changes });
  return { key: toApiKey(row), plainKey };
}

/** A plain key is `ck_` and 256 random bits. Only its SHA-256 is stored. */
async function insert(db: Kysely<Database>, input: NewApiKey) {
  const plainKey = `ck_${randomBytes(32).toString('base64url')}`;
  const row = await db
    .insertInto('api_keys')
    .values({
      id: uuidV7(),
      app_id: input.appId,
      name: input.name,
      key_hash: hashApiKey(plainKey),
      scopes: [...input.scopes],
      expires_at: input.expiresAt ?? null,
      requests_per_second: input.requestsPerSecond ?? null,
    })
    .returning(apiKeyColumns)
    .executeTakeFirstOrThrow();
  return { row, plainKey };
}

/** Of an app or, with null, of administrators. Newest first, also those that are revoked or have expired; `cursor` is the last id of the page before. */
export async function listApiKeys(
  db: Kysely<Database>,
  appId: number | null,
  page: { cursor?: string | undefined; limit: number },
): Promise<ApiKey[]> {
  let query = db.selectFrom('api_keys').select(apiKeyColumns).where(isOfApp(appId));
  if (page.cursor !== undefined) query = query.where('id', '<', page.cursor);
  const rows = await query.orderBy('id', 'desc').limit(page.limit).execute();
  return rows.map(toApiKey);
}

/** False: the app has no such key. A repeat changes nothing. */
export async function revokeApiKey(
  trx: Transaction<Database>,
  actor: Actor,
  appId: number | null,
  id: string,
): Promise<boolean> {
  const key = await lockApiKey(trx, appId, id);
  if (!key || key.revokedAt) return key !== undefined;
  await trx.updateTable('api_keys').set({ revoked_at: sql<Date>`now()` }).where('id', '=', id).execute();
  const changes = { name: key.name };
  await recordChange(trx, actor, { appId, action: 'key.revoke', target: { kind: 'key', id }, changes });
  return true;
}

/**
 * Makes another key that may do the same and lives as long, from now on, and lets the one before it live for `overlapSeconds`
 * at most.
 */
export async function rotateApiKey(
  trx: Transaction<Database>,
  actor: Actor,
  appId: number | null,
  id: string,
  overlapSeconds: number,
): Promise<{ kind: 'rotated'; key: ApiKey; plainKey: string } | { kind: 'unknown' } | { kind: 'ended' }> {
  const before = await lockApiKey(trx, appId, id);
  if (!before) return { kind: 'unknown' };
  const now = await databaseNow(trx);
  const { name, scopes, requestsPerSecond, createdAt, expiresAt, revokedAt } = before;
  if (revokedAt || (expiresAt && expiresAt <= now)) return { kind: 'ended' };
  const lifeMs = expiresAt && expiresAt.getTime() - createdAt.getTime();
  const { row, plainKey } = await insert(trx, {
    ...{ appId, name, scopes, requestsPerSecond },
    expiresAt: lifeMs === undefined ? undefined : new Date(now.getTime() + lifeMs),
  });
  const overlapEnd = new Date(now.getTime() + overlapSeconds * 1_000);
  const expires_at = expiresAt && expiresAt < overlapEnd ? expiresAt : overlapEnd;
  await trx.updateTable('api_keys').set({ expires_at }).where('id', '=', id).execute();
  const changes = { name, replaced_by: row.id, expires_at: expires_at.toISOString() };
  await recordChange(trx, actor, { appId, action: 'key.rotate', target: { kind: 'key', id }, changes });
  return { kind: 'rotated', key: toApiKey(row), plainKey };
}

/** Null: of no app. */
function isOfApp(appId: number | null) {
  return appId === null ? sql<boolean>`app_id is null` : sql<boolean>`app_id = ${appId}`;
}

async function lockApiKey(trx: Transaction<Database>, appId: number | null, id: string): Promise<ApiKey | undefined> {
  const row = await trx
    .selectFrom('api_keys')
    .select(apiKeyColumns)
    .where(isOfApp(appId))
    .where('id', '=', id)
    .forNoKeyUpdate()
    .executeTakeFirst();
  return row && toApiKey(row);
}

const apiKeyColumns = [
  'id',
  'name',
  'scopes',
  'requests_per_second',
  'created_at',
  'expires_at',
  'last_used_at',
  'revoked_at',
] as const;

function toApiKey(row: Pick<Selectable<Database['api_keys']>, (typeof apiKeyColumns)[number]>): ApiKey {
  return {
    id: row.id,
    name: row.name,
    scopes: row.scopes,
    requestsPerSecond: row.requests_per_second ?? undefined,
    createdAt: row.created_at,
    expiresAt: row.expires_at ?? undefined,
    lastUsedAt: row.last_used_at ?? undefined,
    revokedAt: row.revoked_at ?? undefined,
  };
}

/**
 * The key and its app; undefined for keys that never were, are revoked or have expired. Found by hash, so the time it takes says
 * nothing about the key. Notes that the key was used, once a minute at most.
 */
export async function findApiKeyOfAnyApp(db: Kysely<Database>, plainKey: string): Promise<ValidApiKey | undefined> {
  const row = await db
    .with('found', (qb) =>
      qb
        .selectFrom('api_keys')
        .selectAll()
        .where('key_hash', '=', hashApiKey(plainKey))
        .where('revoked_at', 'is', null)
        .where(sql<boolean>`(expires_at is null or expires_at > now())`),
    )
    .with('noted', (qb) =>
      qb
        .updateTable('api_keys')
        .from('found')
        .set({ last_used_at: sql<Date>`now()` })
        .whereRef('api_keys.id', '=', 'found.id')
        .where(sql<boolean>`(found.last_used_at is null or found.last_used_at < now() - interval '1 minute')`),
    )
    .selectFrom('found')
    .select(['id', 'app_id', 'scopes', 'requests_per_second'])
    .select(sql<number | null>`extract(epoch from expires_at - now())::float8 * 1000`.as('expires_in_ms'))
    .executeTakeFirst();
  if (!row) return undefined;
  const app = row.app_id === null ? undefined : await findAppOfAnyApp(db, row.app_id);
  // It was deleted just now: its keys must not pass for an administrator's.
  if (row.app_id !== null && !app) return undefined;
  return {
    id: row.id,
    app,
    scopes: row.scopes,
    requestsPerSecond: row.requests_per_second ?? undefined,
    expiresInMs: row.expires_in_ms ?? undefined,
  };
}

function hashApiKey(plainKey: string): Buffer {
  return createHash('sha256').update(plainKey).digest();
}
