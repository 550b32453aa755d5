import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';
import { inTransaction } from './transaction.ts';

const notificationsPerPage = 200;
/** A message is cancelled under the locks of its lanes, which no worker can send meanwhile. */
const entriesPerPage = 500;

/** Drafts as well: they would stand in the way of nothing, and are cancelled in the same way as what is under way. */
export async function listUncancelledNotifications(db: Kysely<Database>, appId: number): Promise<string[]> {
  const rows = await db
    .selectFrom('notifications')
    .select('id')
    .where('app_id', '=', appId)
    .where('state', 'not in', ['completed', 'cancelled'])
    .limit(notificationsPerPage)
    .execute();
  return rows.map(({ id }) => id);
}

/** Cancelled, and some of their devices have no outcome yet. */
export async function listUnsettledNotifications(db: Kysely<Database>, appId: number): Promise<string[]> {
  const rows = await db
    .selectFrom('notifications')
    .select('id')
    .where('app_id', '=', appId)
    .where('finished_at', 'is', null)
    .orderBy('id')
    .limit(notificationsPerPage)
    .execute();
  return rows.map(({ id }) => id);
}

export async function listLaneIds(db: Kysely<Database>, appId: number): Promise<number[]> {
  const rows = await db.selectFrom('lanes').select('id').where('app_id', '=', appId).orderBy('id').execute();
  return rows.map(({ id }) => id);
}

/**
 * Cancels the messages of the next entries of a lane that have no outcome. What a provider may just be getting stays as it is.
 * @returns where the next page begins; undefined: there is none
 */
export function cancelEntries(
  db: Kysely<Database>,
  appId: number,
  laneId: number,
  from: number,
): Promise<number | undefined> {
  return inTransaction(db, async (trx) => {
    // A message has entries in several lanes: in one order for all of the page.
    await sql`select from lanes where app_id = ${appId} order by id for no key update`.execute(trx);
    const { rows } = await sql<{ last: number | null }>`
      with page as materialized (
        select e.position, e.message_id from lanes l join message_entries e on e.lane_id = l.id
        where l.id = ${laneId} and e.position >= greatest(l.settled, ${from}) and e.outcome is null
        order by e.position limit ${entriesPerPage}
      ),
      cancelled as materialized (
        select cancel_message(m.id, m.device_ids) from messages m
        where m.app_id = ${appId} and m.id = any (array(select message_id from page))
      )
      select max(position) as last, (select count(*) from cancelled) from page
    `.execute(trx);
    const { last } = rows[0]!;
    return last === null ? undefined : last + 1;
  });
}

/** Whether a lane of the app has entries without an outcome. */
export async function hasPendingEntries(db: Kysely<Database>, appId: number): Promise<boolean> {
  const { rows } = await sql<{ has: boolean }>`
    select exists (
      select from lanes l cross join lateral (
        select from message_entries where lane_id = l.id and position >= l.settled and outcome is null limit 1
      ) e where l.app_id = ${appId}
    ) as has
  `.execute(db);
  return rows[0]!.has;
}
