import { type Kysely, sql, type Transaction } from 'kysely';
import type { ListedCounts } from '../domain/notification.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import type { Database } from './schema.ts';

/** One line of an uploaded list: a device, or all devices of a user. */
export type ListedId = { externalId: string } | { userId: string };

/**
 * Begins a list for a draft whose audience asks for one. It counts once it is finished; until then the one before it does.
 * Undefined: there is no such draft.
 */
export async function beginAudienceList(
  db: Kysely<Database>,
  appId: number,
  notificationId: string,
): Promise<string | undefined> {
  const id = uuidV7();
  const { numAffectedRows } = await sql`
    insert into audience_lists (id, notification_id)
    select ${id}::uuid, id from notifications
    where id = ${notificationId} and app_id = ${appId} and state = 'draft' and audience ? 'uploaded'
  `.execute(db);
  return Number(numAffectedRows) > 0 ? id : undefined;
}

/**
 * Adds the devices that these ids have now. A device that is there already is not there twice; listed by itself it stays whichever
 * user it has. Counts are of `ids`, repeated ones as often as they come.
 */
export async function addToAudienceList(
  db: Kysely<Database>,
  appId: number,
  listId: string,
  ids: ListedId[],
): Promise<ListedCounts> {
  const externalIds = ids.map((id) => ('externalId' in id ? id.externalId : null));
  const userIds = ids.map((id) => ('userId' in id ? id.userId : null));
  const { rows } = await sql<{ matched: number; live: number }>`
    with line as materialized (
      select * from unnest(${externalIds}::text[], ${userIds}::text[]) with ordinality as line (external_id, user_id, n)
    ),
    found as materialized (
      select line.n, device.id, device.is_live, null::text as user_id
      from line cross join lateral (
        select id, retired_at is null and device_token is not null as is_live
        from devices where app_id = ${appId} and external_id = line.external_id limit 1
      ) as device
      union all
      select line.n, device.id, device.is_live, line.user_id
      from line cross join lateral (
        select id, retired_at is null and device_token is not null as is_live
        from devices where app_id = ${appId} and user_id = line.user_id offset 0
      ) as device
    ),
    stored as (
      insert into audience_members (list_id, device_id, user_id)
      select distinct on (id) ${listId}::uuid, id, user_id from found order by id, user_id nulls first
      on conflict on constraint audience_members_pkey do update set user_id = excluded.user_id
        where audience_members.user_id is not null
    )
    select count(distinct n) as matched, count(distinct n) filter (where is_live) as live from found
  `.execute(db);
  return { listed: ids.length, ...rows[0]! };
}

/** From now on this list counts, and no other of the notification. False: it is no longer such a draft; the list is gone. */
export async function finishAudienceList(
  trx: Transaction<Database>,
  appId: number,
  notificationId: string,
  listId: string,
  counts: ListedCounts,
): Promise<boolean> {
  const { numAffectedRows } = await sql`
    update notifications set audience_list_id = ${listId}::uuid, updated_at = now(),
      listed = coalesce(listed, '{}') || ${JSON.stringify({ uploaded: counts })}::jsonb
    where id = ${notificationId} and app_id = ${appId} and state = 'draft' and audience ? 'uploaded'
  `.execute(trx);
  const isDone = Number(numAffectedRows) > 0;
  const gone = trx.deleteFrom('audience_lists').where('notification_id', '=', notificationId);
  await (isDone ? gone.where('id', '<>', listId) : gone.where('id', '=', listId)).execute();
  return isDone;
}

/** A list that will not be finished. */
export async function dropAudienceList(db: Kysely<Database>, listId: string): Promise<void> {
  await db.deleteFrom('audience_lists').where('id', '=', listId).execute();
}

/** No list of this notification will be read any more. */
export async function forgetLists(db: Kysely<Database>, notificationId: string): Promise<void> {
  await db.deleteFrom('audience_lists').where('notification_id', '=', notificationId).execute();
}

/** The part of the list that is planned is needed no more. */
export async function forgetMembers(
  trx: Transaction<Database>,
  listId: string | null,
  upToDeviceId: number,
): Promise<void> {
  if (listId === null) return;
  await trx
    .deleteFrom('audience_members')
    .where('list_id', '=', listId)
    .where('device_id', '<=', upToDeviceId)
    .execute();
}
