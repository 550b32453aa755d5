import { type Kysely, sql, type Transaction } from 'kysely';
import { workerActor } from '../domain/actor.ts';
import type { App, AppDeletion } from '../domain/app.ts';
import { providerNames } from '../domain/device.ts';
import { recordChange } from './audit-entries.ts';
import { deleteRateLimits } from './rate-limits.ts';
import type { Database } from './schema.ts';
import { deleteWebhooks } from './webhooks.ts';

/** Counted no further: it is there to be told to people. */
const maxCount = 10_000;

/** What an app has; at most 10 000 of each are counted. Messages: devices that any were accepted for. */
export async function countContents(
  db: Kysely<Database>,
  appId: number,
): Promise<Pick<AppDeletion, 'devices' | 'notifications' | 'messages'>> {
  const { rows } = await sql<{ devices: number; notifications: number; messages: number }>`
    select (select count(*) from (select from devices where app_id = ${appId} limit ${maxCount}) d) as devices,
      (select count(*) from (select from notifications where app_id = ${appId} limit ${maxCount}) n) as notifications,
      (select least(coalesce(sum(devices), 0), ${maxCount})::integer from message_counts
        where app_id = ${appId} and outcome = 'entered') as messages
  `.execute(db);
  return rows[0]!;
}

/**
 * From now on nothing of the app can be created or read, its keys and credentials are revoked, and nobody is told of it any more. Part of
 * the transaction that has locked the app.
 */
export async function beginAppDeletion(trx: Kysely<Database>, appId: number): Promise<void> {
  await sql`
    update apps set updated_at = clock_timestamp(), deletion = jsonb_build_object(
      'requestedAt', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'devices', 0, 'notifications', 0, 'messages', 0)
    where id = ${appId} and deletion is null
  `.execute(trx);
  await sql`update api_keys set revoked_at = now() where app_id = ${appId} and revoked_at is null`.execute(trx);
  await sql`update credentials set revoked_at = now(), secret_jwe = '' where app_id = ${appId} and revoked_at is null`.execute(
    trx,
  );
  await deleteWebhooks(trx, appId);
}

export function listDeletionsOfAllApps(db: Kysely<Database>): Promise<Pick<App, 'id' | 'name'>[]> {
  return db.selectFrom('apps').select(['id', 'name']).where('deletion', 'is not', null).orderBy('id').execute();
}

/** How far the deletion is, and what the clock of the database says of it; undefined: the app is gone, or is to stay. */
export async function findDeletionOfAnyApp(
  db: Kysely<Database>,
  appId: number,
): Promise<{ name: string; deletion: AppDeletion; msSinceRequest: number; msSinceCancel: number } | undefined> {
  const row = await db
    .selectFrom('apps')
    .select(['name', 'deletion'])
    .select(msSince('requestedAt').as('msSinceRequest'))
    .select(msSince('cancelledAt').as('msSinceCancel'))
    .where('id', '=', appId)
    .executeTakeFirst();
  return row?.deletion ? { ...row, deletion: row.deletion } : undefined;
}

function msSince(instant: keyof AppDeletion) {
  return sql<number>`(coalesce(extract(epoch from clock_timestamp() - (deletion ->> ${sql.lit(instant)})::timestamptz), 0) * 1000)::float8`;
}

/** Once: a repeat leaves the instant as it is. */
export async function noteAllCancelled(db: Kysely<Database>, appId: number): Promise<void> {
  await sql`
    update apps set deletion = jsonb_build_object('cancelledAt',
      to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) || deletion
    where id = ${appId} and deletion is not null and not deletion ? 'cancelledAt'
  `.execute(db);
}

/**
 * The app itself, with what is few. False: something of it is there still, or came meanwhile.
 *
 * Nothing can come after: devices and notifications have a foreign key to the app, and so has the lane that a message needs, which is
 * made or found under the lock that is taken here.
 */
export function deleteApp(db: Kysely<Database>, appId: number): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    for (const provider of providerNames) {
      await sql`select pg_advisory_xact_lock(hashtextextended(format('lanes %s %s', ${appId}::bigint, ${provider}::text), 0))`.execute(
        trx,
      );
    }
    const { rows } = await sql<{ name: string; deletion: AppDeletion }>`
      select name, deletion from apps where id = ${appId} and deletion is not null for update
    `.execute(trx);
    const [app] = rows;
    if (!app) return true;
    if (await hasContents(trx, appId)) return false;
    await recordChange(trx, workerActor, {
      ...{ appId, action: 'app.deleted', target: { kind: 'app', id: app.name } },
      changes: countsOf(app.deletion),
    });
    await sql`delete from lane_ends where lane_id in (select id from lanes where app_id = ${appId})`.execute(trx);
    await deleteRateLimits(trx, appId);
    for (const table of [
      'lanes',
      'message_counts',
      'event_types',
      'webhook_feed',
      'token_evidence',
      'provider_hosts',
      'credentials',
      'api_keys',
    ] as const) {
      await trx
        .deleteFrom(table as 'lanes')
        .where('app_id', '=', appId)
        .execute();
    }
    await trx.deleteFrom('apps').where('id', '=', appId).execute();
    return true;
  });
}

async function hasContents(trx: Transaction<Database>, appId: number): Promise<boolean> {
  const { rows } = await sql<{ has: boolean }>`
    select exists (select from devices where app_id = ${appId})
      or exists (select from notifications where app_id = ${appId})
      or exists (select from webhook_events where app_id = ${appId})
      or exists (select from message_keys where app_id = ${appId})
      or exists (select from messages where app_id = ${appId} and device_ids = '{}')
      or exists (select from event_counts where app_id = ${appId})
      or exists (select from lanes l cross join lateral (select from message_entries where lane_id = l.id limit 1) e where l.app_id = ${appId})
      as has
  `.execute(trx);
  return rows[0]!.has;
}

function countsOf({ devices, notifications, messages }: AppDeletion) {
  return { devices, notifications, messages };
}
