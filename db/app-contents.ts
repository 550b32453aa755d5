import { type Kysely, sql, type Transaction } from 'kysely';
import type { AppDeletion } from '../domain/app.ts';
import type { Database } from './schema.ts';
import { inTransaction } from './transaction.ts';

/** Of one transaction: a fraction of a second. */
const rowsPerPage = 2_000;
/** A batch has some hundred kilobytes. */
const batchesPerPage = 200;
const notificationsPerPage = 100;

type Gone = Partial<Pick<AppDeletion, 'devices' | 'notifications' | 'messages'>>;

/** What a page did, and where the next one begins; undefined: there is none. */
interface Page<Cursor> {
  gone: Gone;
  next: Cursor | undefined;
}

/**
 * Deletes all of an app that may be much, in short transactions, and comes back after each. What is gone is counted in the same
 * transaction, so it may be stopped anywhere and begun again. Whatever is under way must have ended.
 */
export async function* deleteContents(db: Kysely<Database>, appId: number): AsyncGenerator<void> {
  async function* pages<Cursor>(
    first: Cursor,
    step: (trx: Transaction<Database>, from: Cursor) => Promise<Page<Cursor>>,
  ): AsyncGenerator<void> {
    for (let from: Cursor | undefined = first; from !== undefined; ) {
      const at: Cursor = from;
      from = await inTransaction(db, async (trx) => {
        await alongIndexes(trx);
        const { gone, next } = await step(trx, at);
        await noteGone(trx, appId, gone);
        return next;
      });
      yield;
    }
  }

  // Nothing is told of the app any more once those have ended that began before its deletion.
  yield* pages(true, (trx) => deleteEvents(trx, appId, 'event_devices'));
  yield* pages(true, (trx) => deleteEvents(trx, appId, 'event_counts'));
  const lanes = await db.selectFrom('lanes').select('id').where('app_id', '=', appId).orderBy('id').execute();
  for (const { id } of lanes) yield* pages(0, (trx, from) => deleteEntries(trx, appId, id, from));
  yield* pages(true, (trx) => deleteMessagesWithoutDevice(trx, appId));
  yield* pages(true, (trx) => deleteMessageKeys(trx, appId));
  yield* pages(true, (trx) => deleteWebhookEvents(trx, appId));
  yield* pages(true, (trx) => deleteNotifications(trx, appId));
  yield* pages('', (trx, from) => deleteDevices(trx, appId, from));
  yield* pages(true, (trx) => deleteSuspects(trx, appId));
  yield* pages(true, (trx) => deleteDepartures(trx, appId));
}

/** Statistics lag behind while a table is emptied. */
async function alongIndexes(trx: Transaction<Database>): Promise<void> {
  await sql`
    select set_config(name, 'off', true) from unnest(array['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) as name
  `.execute(trx);
}

async function noteGone(trx: Transaction<Database>, appId: number, gone: Gone): Promise<void> {
  for (const [kind, rows] of Object.entries(gone)) {
    if (rows === 0) continue;
    await sql`
      update apps set deletion = jsonb_set(deletion, array[${kind}::text], to_jsonb((deletion ->> ${kind}::text)::bigint + ${rows}::bigint))
      where id = ${appId}
    `.execute(trx);
  }
}

const eventKeys = {
  event_devices: ['send_id', 'batch_seq', 'part', 'type'],
  event_counts: ['send_id', 'hour', 'type', 'variant'],
};

async function deleteEvents(
  trx: Transaction<Database>,
  appId: number,
  table: keyof typeof eventKeys,
): Promise<Page<true>> {
  await sql`select pg_advisory_xact_lock(hashtextextended(format('events %s', ${appId}::bigint), 0))`.execute(trx);
  const keys = sql.join(eventKeys[table].map((column) => sql.ref(column)));
  const events = await deleted(
    trx,
    sql`
      delete from ${sql.table(table)} where app_id = ${appId} and (${keys}) in (
        select ${keys} from ${sql.table(table)} where app_id = ${appId} limit ${rowsPerPage}
      )`,
  );
  return { gone: {}, next: more(events) };
}

/** With their messages: an entry of the same message in another lane does not need it any more. */
async function deleteEntries(
  trx: Transaction<Database>,
  appId: number,
  laneId: number,
  from: number,
): Promise<Page<number>> {
  const { rows } = await sql<{ last: number | null; messages: number }>`
    with page as materialized (
      select device_id, message_id, position from message_entries where lane_id = ${laneId} and position >= ${from}
      order by position limit ${rowsPerPage}
    ),
    entries as (
      delete from message_entries e using page where e.device_id = page.device_id and e.message_id = page.message_id
    ),
    gone as (
      delete from messages m using (select distinct message_id from page) own
      where m.id = own.message_id and m.app_id = ${appId} returning m.id
    )
    select (select max(position) from page) as last, (select count(*) from gone) as messages
  `.execute(trx);
  const { last, messages } = rows[0]!;
  return { gone: { messages }, next: last === null ? undefined : last + 1 };
}

async function deleteMessagesWithoutDevice(trx: Transaction<Database>, appId: number): Promise<Page<true>> {
  const messages = await deleted(
    trx,
    sql`
      delete from messages where id = any (array(
        select id from messages where app_id = ${appId} and device_ids = '{}' limit ${rowsPerPage}
      ))`,
  );
  return { gone: { messages }, next: more(messages) };
}

async function deleteMessageKeys(trx: Transaction<Database>, appId: number): Promise<Page<true>> {
  const keys = await deleted(
    trx,
    sql`
      delete from message_keys where app_id = ${appId} and idempotency_key = any (array(
        select idempotency_key from message_keys where app_id = ${appId} order by idempotency_key limit ${rowsPerPage}
      ))`,
  );
  return { gone: {}, next: more(keys) };
}

/** With their deliveries, a few of each event; the webhooks themselves went first. */
async function deleteWebhookEvents(trx: Transaction<Database>, appId: number): Promise<Page<true>> {
  const { rows } = await sql<{ events: number }>`
    with page as materialized (select id from webhook_events where app_id = ${appId} order by id limit ${rowsPerPage}),
    deliveries as (delete from webhook_deliveries d using page where d.event_id = page.id),
    gone as (delete from webhook_events e using page where e.id = page.id returning e.id)
    select count(*) as events from gone
  `.execute(trx);
  return { gone: {}, next: more(rows[0]!.events) };
}

/** The next of them with all that is theirs; where that is more than a page, a page of it. */
async function deleteNotifications(trx: Transaction<Database>, appId: number): Promise<Page<true>> {
  const rows = await trx
    .selectFrom('notifications')
    .select('id')
    .where('app_id', '=', appId)
    .orderBy('id', 'desc')
    .limit(notificationsPerPage)
    .execute();
  const ids = rows.map(({ id }) => id);
  const groups = await deleted(
    trx,
    sql`
      delete from delivery_groups g using (
        select notification_id, batch_seq, first_position from delivery_groups where notification_id = any (${ids}::uuid[])
        limit ${rowsPerPage}
      ) page
      where g.notification_id = any (${ids}::uuid[]) and g.notification_id = page.notification_id
        and g.batch_seq = page.batch_seq and g.first_position = page.first_position`,
  );
  if (more(groups)) return { gone: {}, next: true };
  const members = await deleted(
    trx,
    sql`
      delete from audience_members m using (
        select list_id, device_id from audience_lists l join audience_members on list_id = l.id
        where l.notification_id = any (${ids}::uuid[]) limit ${rowsPerPage}
      ) page
      where m.list_id = page.list_id and m.device_id = page.device_id`,
  );
  if (more(members)) return { gone: {}, next: true };
  const batches = await deleted(
    trx,
    sql`
      delete from batches b using (
        select notification_id, seq from batches where notification_id = any (${ids}::uuid[]) limit ${batchesPerPage}
      ) page
      where b.notification_id = page.notification_id and b.seq = page.seq`,
  );
  if (more(batches, batchesPerPage)) return { gone: {}, next: true };
  await sql`
    delete from rate_limits where scope = any (array(select 'notification:' || id from unnest(${ids}::uuid[]) id))
  `.execute(trx);
  const notifications = await deleted(trx, sql`delete from notifications where id = any (${ids}::uuid[])`);
  return { gone: { notifications }, next: more(notifications, notificationsPerPage) };
}

async function deleteDevices(trx: Transaction<Database>, appId: number, from: string): Promise<Page<string>> {
  const { rows } = await sql<{ last: string | null; devices: number }>`
    with page as materialized (
      select id, external_id from devices where app_id = ${appId} and external_id >= ${from} order by external_id limit ${rowsPerPage}
    ),
    gone as (delete from devices d using page where d.id = page.id returning d.id)
    select (select max(external_id) from page) as last, (select count(*) from gone) as devices
  `.execute(trx);
  const { last, devices } = rows[0]!;
  return { gone: { devices }, next: last ?? undefined };
}

async function deleteSuspects(trx: Transaction<Database>, appId: number): Promise<Page<true>> {
  const suspects = await deleted(
    trx,
    sql`
      delete from token_suspects s using (
        select configuration, device_id from token_suspects where app_id = ${appId} limit ${rowsPerPage}
      ) page
      where s.app_id = ${appId} and s.configuration = page.configuration and s.device_id = page.device_id`,
  );
  return { gone: {}, next: more(suspects) };
}

/** Kept for five weeks and found by their token alone: a look through the table for each page. */
async function deleteDepartures(trx: Transaction<Database>, appId: number): Promise<Page<true>> {
  const departures = await deleted(
    trx,
    sql`
      delete from token_departures where ctid = any (array(
        select ctid from token_departures where app_id = ${appId} limit ${10 * rowsPerPage}
      ))`,
  );
  return { gone: {}, next: more(departures, 10 * rowsPerPage) };
}

async function deleted(trx: Transaction<Database>, statement: ReturnType<typeof sql>): Promise<number> {
  return Number((await statement.execute(trx)).numAffectedRows);
}

function more(rows: number, full = rowsPerPage): true | undefined {
  return rows >= full || undefined;
}
