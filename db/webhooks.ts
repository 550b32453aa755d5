import { randomBytes } from 'node:crypto';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import type { JsonObject } from '../domain/json.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { type DisabledReason, type WebhookFilter, webhookDeletedType, webhookTestType } from '../domain/webhook.ts';
import { recordChange } from './audit-entries.ts';
import { type MasterKeys, sealedBy } from './master-keys.ts';
import type { Database } from './schema.ts';
import { SealedTextError } from './sealed-text.ts';

/** All that is told of a webhook: its secret is told once, when it is made. */
export interface Webhook {
  /** UUID v7. */
  id: string;
  url: string;
  types: string[];
  filter: WebhookFilter;
  disabledAt: Date | undefined;
  disabledReason: DisabledReason | undefined;
  /** The first failure since it last took anything. */
  failingSince: Date | undefined;
  lastError: string | undefined;
  lastDeliveredAt: Date | undefined;
  /** The secret before this one signs too, until then. */
  previousSecretUntil: Date | undefined;
  /** Deliveries; at most 10 000 are counted. */
  pending: number;
  createdAt: Date;
  updatedAt: Date;
}

export type WebhookSettings = Pick<Webhook, 'url' | 'types' | 'filter'>;

/** Counted no further: it is there to be told to people. */
export const maxPendingCount = 10_000;

/** Part of the transaction that has locked the app. @returns undefined where it has `max` of them already */
export async function insertWebhook(
  trx: Kysely<Database>,
  actor: Actor,
  appId: number,
  settings: WebhookSettings,
  masterKeys: MasterKeys,
  max: number,
): Promise<{ webhook: Webhook; secret: string } | undefined> {
  const { rows } = await sql<{ webhooks: number }>`
    select count(*) as webhooks from webhooks where app_id = ${appId}
  `.execute(trx);
  if (rows[0]!.webhooks >= max) return undefined;
  const id = uuidV7();
  const secret = newSecret();
  await trx
    .insertInto('webhooks')
    .values({
      ...{ id, app_id: appId, url: settings.url, types: settings.types, filter: JSON.stringify(settings.filter) },
      secret_jwe: await masterKeys.seal(secret, contextOf(id)),
    })
    .execute();
  const { host } = new URL(settings.url);
  await recordChange(trx, actor, {
    ...{ appId, action: 'webhook.create', target: { kind: 'webhook', id } },
    changes: { host, types: settings.types, filter: settings.filter as JsonObject },
  });
  return { webhook: (await findWebhook(trx, appId, id))!, secret };
}

export async function findWebhook(db: Kysely<Database>, appId: number, id: string): Promise<Webhook | undefined> {
  const row = await selectOfApp(db, appId).where('id', '=', id).executeTakeFirst();
  return row && toWebhook(row);
}

/** Newest first; `cursor` is the last id of the page before. */
export async function listWebhooks(
  db: Kysely<Database>,
  appId: number,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<Webhook[]> {
  const query = selectOfApp(db, appId).orderBy('id', 'desc').limit(limit);
  const rows = await (cursor === undefined ? query : query.where('id', '<', cursor)).execute();
  return rows.map(toWebhook);
}

/** Until the end of the transaction nobody else changes it. */
export async function lockWebhook(trx: Kysely<Database>, appId: number, id: string): Promise<Webhook | undefined> {
  await sql`select from webhooks where app_id = ${appId} and id = ${id} for no key update`.execute(trx);
  return findWebhook(trx, appId, id);
}

/** Part of a transaction that has locked it. Workers follow within seconds. */
export async function updateWebhook(
  trx: Kysely<Database>,
  appId: number,
  id: string,
  { url, types, filter }: Partial<WebhookSettings>,
): Promise<void> {
  await trx
    .updateTable('webhooks')
    .set({
      ...(url !== undefined && { url }),
      ...(types !== undefined && { types }),
      ...(filter !== undefined && { filter: JSON.stringify(filter) }),
      updated_at: sql<Date>`clock_timestamp()`,
    })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .execute();
}

/** It begins anew: what waits is tried at once, and what failed before counts no more. Part of a transaction that has locked it. */
export async function enableWebhook(trx: Kysely<Database>, actor: Actor, appId: number, id: string): Promise<void> {
  await trx
    .updateTable('webhooks')
    .set({ disabled_at: null, disabled_reason: null, failing_since: null, failures: 0 })
    .set({ blocked_until: sql<Date>`'-infinity'`, updated_at: sql<Date>`clock_timestamp()` })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .execute();
  await sql`
    update webhook_deliveries set next_at = clock_timestamp()
    where webhook_id = ${id} and state = 'pending' and next_at > clock_timestamp()
  `.execute(trx);
  await recordChange(trx, actor, { appId, action: 'webhook.enable', target: { kind: 'webhook', id } });
}

/**
 * Nothing is delivered to it from now on, and nothing is kept for it; what waits already stays. The app's other webhooks are told. Part of a
 * transaction that has locked it.
 */
export async function disableWebhook(
  trx: Kysely<Database>,
  actor: Actor,
  appId: number,
  id: string,
  reason: DisabledReason,
): Promise<void> {
  const row = await trx
    .updateTable('webhooks')
    .set({ disabled_at: sql<Date>`clock_timestamp()`, disabled_reason: reason })
    .set({ updated_at: sql<Date>`clock_timestamp()` })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('disabled_at', 'is', null)
    .returning(['url', 'failing_since', 'last_error'])
    .executeTakeFirst();
  if (row === undefined) return;
  const { host } = new URL(row.url);
  const failingSince = row.failing_since?.toISOString() ?? null;
  await recordChange(trx, actor, {
    ...{ appId, action: 'webhook.disable', target: { kind: 'webhook', id } },
    changes: { reason, host, failing_since: failingSince, last_error: row.last_error },
  });
  const data = { webhook_id: id, host, reason, failing_since: failingSince, last_error: row.last_error };
  await sql`select feed_webhooks(${appId}, 'webhook.disabled', 'webhook:' || ${id}::text, ${JSON.stringify(data)})`.execute(
    trx,
  );
}

/** The log of what it was told goes with its weeks. A repeat finds nothing. Part of a transaction. */
export async function deleteWebhook(trx: Kysely<Database>, actor: Actor, appId: number, id: string): Promise<boolean> {
  const row = await trx
    .deleteFrom('webhooks')
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .returning('url')
    .executeTakeFirst();
  if (row === undefined) return false;
  await feed(trx, appId, webhookDeletedType, id);
  await recordChange(trx, actor, {
    ...{ appId, action: 'webhook.delete', target: { kind: 'webhook', id } },
    changes: { host: new URL(row.url).host },
  });
  return true;
}

/** Those of an app that is being deleted. Part of a transaction. */
export async function deleteWebhooks(trx: Kysely<Database>, appId: number): Promise<void> {
  await sql`
    with gone as (delete from webhooks where app_id = ${appId} returning id)
    insert into webhook_feed (app_id, type, subject, data) select ${appId}, ${webhookDeletedType}, id, '{}' from gone
  `.execute(trx);
}

/** An event for this webhook alone. */
export async function feedTest(db: Kysely<Database>, appId: number, id: string): Promise<void> {
  await feed(db, appId, webhookTestType, id, { webhook_id: id });
}

async function feed(db: Kysely<Database>, appId: number, type: string, id: string, data = {}): Promise<void> {
  await db
    .insertInto('webhook_feed')
    .values({ app_id: appId, type, subject: id, data: JSON.stringify(data) })
    .execute();
}

/**
 * Another secret signs from now on; the one before it signs too for so long. Where a rotation was made a while ago, the secret before that
 * one ends now. Part of a transaction that has locked the webhook.
 */
export async function rotateSecret(
  trx: Kysely<Database>,
  actor: Actor,
  appId: number,
  id: string,
  masterKeys: MasterKeys,
  overlapSeconds: number,
): Promise<string> {
  const secret = newSecret();
  const sealed = await masterKeys.seal(secret, contextOf(id));
  const before = await selectSecrets(trx).where('app_id', '=', appId).where('id', '=', id).executeTakeFirstOrThrow();
  // One that nobody can open signs nothing, and would keep the other from it.
  const opens = await openSecrets(masterKeys, { ...before, previous_secret_jwe: null }).then(
    () => true,
    () => false,
  );
  const overlaps = overlapSeconds > 0 && opens;
  await trx
    .updateTable('webhooks')
    .set({
      secret_jwe: sealed,
      previous_secret_jwe: overlaps ? sql.ref('secret_jwe') : null,
      previous_until: overlaps ? sql<Date>`clock_timestamp() + make_interval(secs => ${overlapSeconds})` : null,
      updated_at: sql<Date>`clock_timestamp()`,
    })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .execute();
  await recordChange(trx, actor, {
    ...{ appId, action: 'webhook.rotate_secret', target: { kind: 'webhook', id } },
    changes: { overlap_seconds: overlapSeconds },
  });
  return secret;
}

interface Sealed {
  id: string;
  secret_jwe: string;
  /** Null: there is none, or its time is over. */
  previous_secret_jwe: string | null;
}

/** The secrets that sign, the current one first. @throws {SealedTextError} where one does not open, or no master keys are set */
export async function openSecrets(masterKeys: MasterKeys | undefined, row: Sealed): Promise<string[]> {
  if (masterKeys === undefined) throw new SealedTextError('CARILLON_MASTER_KEYS is not set.');
  const sealed = [row.secret_jwe, row.previous_secret_jwe].filter((secret) => secret !== null);
  return Promise.all(sealed.map((secret) => masterKeys.open(secret, contextOf(row.id))));
}

/** How many webhooks have a secret that each master key has sealed, by its id. */
export async function countWebhooksByMasterKeyOfAllApps(db: Kysely<Database>): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const row of await listSecretsOfAllApps(db)) {
    for (const id of new Set(sealsOf(row))) counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return counts;
}

/** Seals by the first master key what another one has sealed. It may be stopped and repeated. */
export async function reencryptWebhooksOfAllApps(
  db: Kysely<Database>,
  actor: Actor,
  masterKeys: MasterKeys,
): Promise<{ resealed: number /** Ids. */; unreadable: string[] }> {
  let resealed = 0;
  const unreadable: string[] = [];
  for (const row of await listSecretsOfAllApps(db)) {
    if (sealsOf(row).every((id) => id === masterKeys.currentId)) continue;
    try {
      const secrets = await openSecrets(masterKeys, row);
      const [current, previous = null] = await Promise.all(
        secrets.map((secret) => masterKeys.seal(secret, contextOf(row.id))),
      );
      const { numUpdatedRows } = await db
        .updateTable('webhooks')
        .set({ secret_jwe: current!, previous_secret_jwe: previous })
        .$if(previous === null, (query) => query.set({ previous_until: null }))
        .where('id', '=', row.id)
        .where('secret_jwe', '=', row.secret_jwe)
        .executeTakeFirst();
      resealed += Number(numUpdatedRows);
    } catch (error) {
      if (!(error instanceof SealedTextError)) throw error;
      unreadable.push(row.id);
    }
  }
  if (resealed > 0) {
    await recordChange(db, actor, {
      ...{ appId: null, action: 'webhooks.reencrypt', changes: { webhooks: resealed } },
      target: { kind: 'master_key', id: masterKeys.currentId },
    });
  }
  return { resealed, unreadable };
}

/** A few thousand at most. */
function listSecretsOfAllApps(db: Kysely<Database>): Promise<Sealed[]> {
  return selectSecrets(db).orderBy('id').execute();
}

function selectSecrets(db: Kysely<Database>) {
  const previous = sql<string | null>`case when previous_until > clock_timestamp() then previous_secret_jwe end`;
  return db.selectFrom('webhooks').select(['id', 'secret_jwe', previous.as('previous_secret_jwe')]);
}

function sealsOf({ secret_jwe: current, previous_secret_jwe: previous }: Sealed): string[] {
  return [current, ...(previous === null ? [] : [previous])].map((sealed) => sealedBy(sealed) ?? '');
}

/** As Standard Webhooks writes them: 256 random bits. */
function newSecret(): string {
  return `whsec_${randomBytes(32).toString('base64')}`;
}

/** Binds a secret to its row: copied into another app's row it does not open. */
function contextOf(id: string): string {
  return `webhook:${id}`;
}

function selectOfApp(db: Kysely<Database>, appId: number) {
  return db
    .selectFrom('webhooks')
    .selectAll()
    .select(
      sql<number>`(select count(*) from (
        select from webhook_deliveries d where d.webhook_id = webhooks.id and d.state = 'pending' limit ${maxPendingCount}
      ) waiting)`.as('pending'),
    )
    .where('app_id', '=', appId);
}

function toWebhook(row: Selectable<Database['webhooks']> & { pending: number }): Webhook {
  const isOverlapping = row.previous_until !== null && row.previous_until.getTime() > Date.now();
  return {
    ...{ id: row.id, url: row.url, types: row.types, filter: row.filter, pending: row.pending },
    disabledAt: row.disabled_at ?? undefined,
    disabledReason: row.disabled_reason ?? undefined,
    failingSince: row.failing_since ?? undefined,
    lastError: row.last_error ?? undefined,
    lastDeliveredAt: row.last_delivered_at ?? undefined,
    previousSecretUntil: isOverlapping ? row.previous_until! : undefined,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
