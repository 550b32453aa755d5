import { type Kysely, type Selectable, sql } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import {
  type CredentialKind,
  credentialKinds,
  type NewCredential,
  providerOfCredential,
  type StoredCredential,
} from '../domain/credential.ts';
import type { ProviderName } from '../domain/device.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { recordChange } from './audit-entries.ts';
import { type MasterKeys, sealedBy } from './master-keys.ts';
import type { Database } from './schema.ts';
import { SealedTextError } from './sealed-text.ts';

/** All that is told of a stored credential: its secret is not. */
export interface CredentialRecord extends Omit<NewCredential, 'secret'> {
  /** UUID v7 */
  id: string;
  createdAt: Date;
  activatedAt: Date | undefined;
  /** To the minute, as the next. */
  lastUsedAt: Date | undefined;
  lastRefusedAt: Date | undefined;
  /** The provider's own word. */
  lastRefusal: string | undefined;
  revokedAt: Date | undefined;
  /** Workers send with it. */
  isInUse: boolean;
}

/**
 * Stores a credential that was proven; from now on it is the one in use. One that is stored already, by its fingerprint, stays as
 * it is, except that a secret which no master key opens any more is stored anew. Part of a transaction.
 */
export async function storeCredential(
  trx: Kysely<Database>,
  actor: Actor,
  appId: number,
  credential: NewCredential,
  masterKeys: MasterKeys,
): Promise<{ credential: CredentialRecord; isNew: boolean }> {
  const { kind, details, fingerprint, secret, expiresAt } = credential;
  const existing = await trx
    .selectFrom('credentials')
    .select(['id', 'secret_jwe'])
    .where('app_id', '=', appId)
    .where('kind', '=', kind)
    .where('fingerprint', '=', fingerprint)
    .where('revoked_at', 'is', null)
    .forUpdate()
    .executeTakeFirst();
  const isNew = existing === undefined;
  const id = existing?.id ?? uuidV7();
  if (isNew || !(await opens(masterKeys, existing))) {
    const secretJwe = await masterKeys.seal(secret, contextOf(id));
    await trx
      .insertInto('credentials')
      .values({
        ...{ id, kind, fingerprint },
        app_id: appId,
        details: JSON.stringify(details),
        secret_jwe: secretJwe,
        expires_at: expiresAt ?? null,
        activated_at: sql<Date>`clock_timestamp()`,
      })
      .onConflict((conflict) => conflict.column('id').doUpdateSet({ secret_jwe: secretJwe }))
      .execute();
    await recordChange(trx, actor, {
      appId,
      action: isNew ? 'credential.store' : 'credential.reseal',
      target: { kind: 'credential', id },
      changes: { kind, fingerprint, details },
    });
  }
  const [stored] = await readRecords(trx, appId, (query) => query.where('id', '=', id));
  return { credential: stored!, isNew };
}

/** Newest first; `cursor` is the last id of the page before. */
export function listCredentials(
  db: Kysely<Database>,
  appId: number,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<CredentialRecord[]> {
  return readRecords(db, appId, (query) => {
    const page = query.orderBy('id', 'desc').limit(limit);
    return cursor === undefined ? page : page.where('id', '<', cursor);
  });
}

/**
 * Nobody sends with it from now on, and its secret is gone. A repeat changes nothing. Part of a transaction.
 * @returns false where the app has no such credential
 */
export async function revokeCredential(
  trx: Kysely<Database>,
  actor: Actor,
  appId: number,
  id: string,
): Promise<boolean> {
  const found = await trx
    .selectFrom('credentials')
    .select(['kind', 'fingerprint', 'revoked_at'])
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .forUpdate()
    .executeTakeFirst();
  if (found === undefined) return false;
  if (found.revoked_at !== null) return true;
  await trx
    .updateTable('credentials')
    .set({ revoked_at: sql<Date>`clock_timestamp()`, secret_jwe: '' })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .execute();
  await recordChange(trx, actor, {
    appId,
    action: 'credential.revoke',
    target: { kind: 'credential', id },
    changes: { kind: found.kind, fingerprint: found.fingerprint },
  });
  return true;
}

/**
 * The newest credential that is neither revoked nor expired; undefined: there is none.
 * @throws {SealedTextError} where it does not open, or no master keys are set
 */
export async function findCredentialInUse(
  db: Kysely<Database>,
  masterKeys: MasterKeys | undefined,
  appId: number,
  provider: ProviderName,
): Promise<StoredCredential | undefined> {
  const row = await selectUsable(db, appId)
    .selectAll()
    .where('kind', 'in', kindsOf(provider))
    .limit(1)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  const { id, kind, details, fingerprint } = row;
  return {
    id,
    kind,
    details,
    fingerprint,
    secret: await openSecret(masterKeys, row),
    expiresAt: row.expires_at ?? undefined,
  };
}

/** Once a minute at most, however many workers send with it. */
export async function noteCredentialUsedOfAnyApp(db: Kysely<Database>, id: string): Promise<void> {
  await db
    .updateTable('credentials')
    .set({ last_used_at: sql<Date>`now()` })
    .where('id', '=', id)
    .where(sql<boolean>`(last_used_at is null or last_used_at < now() - interval '1 minute')`)
    .execute();
}

/** Once a minute at most. @param reason the provider's own word */
export async function noteCredentialRefusedOfAnyApp(db: Kysely<Database>, id: string, reason: string): Promise<void> {
  await db
    .updateTable('credentials')
    .set({ last_refused_at: sql<Date>`now()`, last_refusal: reason })
    .where('id', '=', id)
    .where(sql<boolean>`(last_refused_at is null or last_refused_at < now() - interval '1 minute')`)
    .execute();
}

interface ExpiringCredential {
  id: string;
  appName: string;
  kind: CredentialKind;
  fingerprint: string;
  expiresAt: Date;
}

/** Neither revoked nor renewed, and expired or about to be. */
export async function listExpiringCredentialsOfAllApps(
  db: Kysely<Database>,
  days: number,
): Promise<ExpiringCredential[]> {
  const rows = await db
    .selectFrom('credentials as c')
    .innerJoin('apps', 'apps.id', 'c.app_id')
    .select(['c.id', 'apps.name', 'c.kind', 'c.fingerprint', 'c.expires_at'])
    .where('c.revoked_at', 'is', null)
    .where(sql<boolean>`c.expires_at < now() + make_interval(days => ${days})`)
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom('credentials as newer')
            .select('newer.id')
            .whereRef('newer.app_id', '=', 'c.app_id')
            .whereRef('newer.activated_at', '>', 'c.activated_at')
            .where('newer.revoked_at', 'is', null)
            // Of the same provider, whose name the kind begins with.
            .where(sql<boolean>`split_part(newer.kind, '_', 1) = split_part(c.kind, '_', 1)`),
        ),
      ),
    )
    .orderBy('c.expires_at')
    .execute();
  return rows.map(({ id, name, kind, fingerprint, expires_at: expiresAt }) => ({
    ...{ id, appName: name, kind, fingerprint },
    expiresAt: expiresAt!,
  }));
}

/** How many secrets each master key has sealed, by its id: a key that is not among them may leave `CARILLON_MASTER_KEYS`. */
export async function countCredentialsByMasterKeyOfAllApps(db: Kysely<Database>): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for await (const { secret_jwe: sealed } of eachSecretOfAllApps(db)) {
    const id = sealedBy(sealed) ?? '';
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return counts;
}

/** Seals by the first master key what another one has sealed. It may be stopped and repeated. */
export async function reencryptCredentialsOfAllApps(
  db: Kysely<Database>,
  actor: Actor,
  masterKeys: MasterKeys,
): Promise<{ resealed: number /** Ids. */; unreadable: string[] }> {
  let resealed = 0;
  const unreadable: string[] = [];
  for await (const row of eachSecretOfAllApps(db)) {
    if (sealedBy(row.secret_jwe) === masterKeys.currentId) continue;
    let secret: string;
    try {
      secret = await openSecret(masterKeys, row);
    } catch (error) {
      if (!(error instanceof SealedTextError)) throw error;
      unreadable.push(row.id);
      continue;
    }
    const secretJwe = await masterKeys.seal(secret, contextOf(row.id));
    const { numUpdatedRows } = await db
      .updateTable('credentials')
      .set({ secret_jwe: secretJwe })
      .where('id', '=', row.id)
      .where('secret_jwe', '=', row.secret_jwe)
      .executeTakeFirst();
    resealed += Number(numUpdatedRows);
  }
  if (resealed > 0) {
    await recordChange(db, actor, {
      ...{ appId: null, action: 'credentials.reencrypt', changes: { credentials: resealed } },
      target: { kind: 'master_key', id: masterKeys.currentId },
    });
  }
  return { resealed, unreadable };
}

const pageSize = 100;

async function* eachSecretOfAllApps(db: Kysely<Database>): AsyncGenerator<Sealed> {
  for (let cursor: string | undefined; ; ) {
    let query = db.selectFrom('credentials').select(['id', 'secret_jwe']).where('revoked_at', 'is', null);
    if (cursor !== undefined) query = query.where('id', '>', cursor);
    const page = await query.orderBy('id').limit(pageSize).execute();
    yield* page;
    if (page.length < pageSize) return;
    cursor = page.at(-1)!.id;
  }
}

interface Sealed {
  id: string;
  secret_jwe: string;
}

async function openSecret(masterKeys: MasterKeys | undefined, { id, secret_jwe: sealed }: Sealed): Promise<string> {
  if (masterKeys === undefined) throw new SealedTextError('CARILLON_MASTER_KEYS is not set.');
  return await masterKeys.open(sealed, contextOf(id));
}

async function opens(masterKeys: MasterKeys, row: Sealed): Promise<boolean> {
  return await openSecret(masterKeys, row).then(
    () => true,
    () => false,
  );
}

/** Binds a secret to its row: copied into another app's row it does not open. */
function contextOf(id: string): string {
  return `credential:${id}`;
}

function kindsOf(provider: ProviderName): CredentialKind[] {
  return credentialKinds.filter((kind) => providerOfCredential[kind] === provider);
}

/** Of both providers, the one in use first. */
function selectUsable(db: Kysely<Database>, appId: number) {
  return db
    .selectFrom('credentials')
    .where('app_id', '=', appId)
    .where('revoked_at', 'is', null)
    .where('activated_at', 'is not', null)
    .where(sql<boolean>`(expires_at is null or expires_at > now())`)
    .orderBy('activated_at', 'desc')
    .orderBy('id', 'desc');
}

async function readRecords(
  db: Kysely<Database>,
  appId: number,
  narrow: (query: ReturnType<typeof selectOfApp>) => ReturnType<typeof selectOfApp>,
): Promise<CredentialRecord[]> {
  const rows = await narrow(selectOfApp(db, appId)).execute();
  const usable = await selectUsable(db, appId).select(['id', 'kind']).execute();
  const inUse = new Map<ProviderName, string>();
  for (const { id, kind } of usable.reverse()) inUse.set(providerOfCredential[kind], id);
  return rows.map((row) => toRecord(row, inUse.get(providerOfCredential[row.kind]) === row.id));
}

function selectOfApp(db: Kysely<Database>, appId: number) {
  return db.selectFrom('credentials').selectAll().where('app_id', '=', appId);
}

function toRecord(row: Selectable<Database['credentials']>, isInUse: boolean): CredentialRecord {
  return {
    ...{ id: row.id, kind: row.kind, details: row.details, fingerprint: row.fingerprint, isInUse },
    expiresAt: row.expires_at ?? undefined,
    createdAt: row.created_at,
    activatedAt: row.activated_at ?? undefined,
    lastUsedAt: row.last_used_at ?? undefined,
    lastRefusedAt: row.last_refused_at ?? undefined,
    lastRefusal: row.last_refusal ?? undefined,
    revokedAt: row.revoked_at ?? undefined,
  };
}
