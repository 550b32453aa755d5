import { type Kysely, sql } from 'kysely';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { type FedChange, formEvents, type NewWebhookEvent, webhookDeletedType } from '../domain/webhook.ts';
import type { Database } from './schema.ts';
import { inTransaction } from './transaction.ts';

/** Of one transaction. One change may hold as many items as a window has devices. */
const changesAtOnce = 200;

interface Collected {
  changes: number;
  /** That have something to be delivered now, or are gone. */
  webhookIds: string[];
  deletedIds: string[];
}

/**
 * Takes the oldest changes out of the outbox, in order, and stores the events they make with a delivery for each webhook that wants one,
 * in one transaction. One worker at a time does it.
 * @returns undefined while another one does
 */
export function collectFeedOfAllApps(db: Kysely<Database>): Promise<Collected | undefined> {
  return inTransaction(db, async (trx) => {
    const { rows: locks } = await sql<{ isMine: boolean }>`
      select pg_try_advisory_xact_lock(hashtext('collect_webhooks')) as "isMine"
    `.execute(trx);
    if (!locks[0]!.isMine) return undefined;
    const { rows: changes } = await sql<FedChange & { id: number }>`
      with taken as (
        delete from webhook_feed where id = any (array(select id from webhook_feed order by id limit ${changesAtOnce})) returning *
      )
      select id, app_id as "appId", type, subject, data, at from taken order by id
    `.execute(trx);
    if (changes.length === 0) return { changes: 0, webhookIds: [], deletedIds: [] };
    const appIds = [...new Set(changes.map(({ appId }) => appId))];
    const webhooks = await trx
      .selectFrom('webhooks')
      .select(['id', 'app_id as appId', 'types', 'filter'])
      .where('app_id', 'in', appIds)
      .where('disabled_at', 'is', null)
      .orderBy('id')
      .execute();
    const events = formEvents(changes, webhooks).map((event) => ({ ...event, id: uuidV7() }));
    if (events.length > 0) await insertEvents(trx, events);
    return {
      changes: changes.length,
      webhookIds: [...new Set(events.flatMap(({ webhookIds }) => webhookIds))],
      deletedIds: changes.filter(({ type }) => type === webhookDeletedType).map(({ subject }) => subject!),
    };
  });
}

async function insertEvents(trx: Kysely<Database>, events: (NewWebhookEvent & { id: string })[]): Promise<void> {
  for (const { id } of [events[0]!, events.at(-1)!]) {
    await sql`select create_webhook_partitions(uuid_v7_instant(${id}))`.execute(trx);
  }
  const stored = events.map(({ id, appId, type, subject, data, at }) => ({
    id,
    app_id: appId,
    type,
    subject,
    data,
    at,
  }));
  await sql`
    insert into webhook_events (id, app_id, type, subject, data, at)
      select * from jsonb_to_recordset(${JSON.stringify(stored)})
        as e (id uuid, app_id bigint, type text, subject text, data jsonb, at timestamptz)
  `.execute(trx);
  const deliveries = events.flatMap(({ id, webhookIds, subject }) =>
    webhookIds.map((webhookId) => ({ id, webhookId, subject })),
  );
  await sql`
    insert into webhook_deliveries (event_id, webhook_id, subject)
      select event_id, webhook_id, subject
      from unnest(${deliveries.map(({ id }) => id)}::uuid[], ${deliveries.map(({ webhookId }) => webhookId)}::uuid[],
        ${deliveries.map(({ subject }) => subject)}::text[]) with ordinality as d (event_id, webhook_id, subject, place)
      order by place
  `.execute(trx);
}

/**
 * Drops whole weeks of events and their deliveries that ended so many days ago, whatever became of them. The statement must not wait for
 * long: it holds up all that delivers meanwhile.
 * @returns the first day of each
 */
export async function dropWebhookWeeks(db: Kysely<Database>, days: number): Promise<string[]> {
  const { rows } = await sql<{ week: string }>`
    select * from drop_webhook_weeks(now() - make_interval(days => ${days})) as week
  `.execute(db);
  return rows.map(({ week }) => week);
}
