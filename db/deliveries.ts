import { type Expression, type Kysely, sql } from 'kysely';
import type { Outcome } from '../domain/outcome.ts';
import { type Ended, isOfGroup } from './delivery-groups.ts';
import type { Database } from './schema.ts';

/** What became of one device of a notification. */
export interface Delivery extends Ended {
  notificationId: string;
  batchSeq: number;
  /** In the batch's frozen array. */
  position: number;
  /** Null when the device was deleted since. */
  externalId: string | null;
  providerMessageId: string | null;
  finishedAt: Date;
}

/** The place of a delivery among those of its notification. */
export type DeliveryCursor = Pick<Delivery, 'batchSeq' | 'position'>;

interface DeliverySearch {
  outcome?: Outcome | undefined;
  reason?: string | undefined;
}

/** Deliveries of one notification of the app in order of batch and position; `cursor` is the last of the page before. */
export async function listDeliveries(
  db: Kysely<Database>,
  appId: number,
  notificationId: string,
  search: DeliverySearch,
  page: { cursor?: DeliveryCursor | undefined; limit: number },
): Promise<Delivery[]> {
  const deliveries: Delivery[] = [];
  let { batchSeq, position } = page.cursor ?? { batchSeq: 0, position: -1 };
  // A batch at a time: what is unfolded and put in order does not grow with the audience.
  while (deliveries.length < page.limit) {
    const next = await nextBatchWith(db, appId, notificationId, search, batchSeq);
    if (next === undefined) break;
    if (next > batchSeq) position = -1;
    const { rows } = await sql<DeliveryLine>`
      select e.*, d.external_id from deliveries e left join devices d on d.id = e.device_id
      where e.notification_id = ${notificationId} and e.batch_seq = ${next} and e.position > ${position}
        and ${isSought('e', search)}
      order by e.position limit ${page.limit - deliveries.length}
    `.execute(db);
    deliveries.push(...rows.map(toDelivery));
    batchSeq = next + 1;
    position = -1;
  }
  return deliveries;
}

/** The first batch from `seq` on that has such a delivery. */
async function nextBatchWith(
  db: Kysely<Database>,
  appId: number,
  notificationId: string,
  search: DeliverySearch,
  seq: number,
): Promise<number | undefined> {
  const { rows } = await sql<{ seq: number }>`
    select g.batch_seq as seq from delivery_groups g
    where g.notification_id = ${notificationId} and g.batch_seq >= ${seq} and ${isSought('g', search)}
      and exists (select from notifications where id = ${notificationId} and app_id = ${appId})
    order by g.batch_seq limit 1
  `.execute(db);
  return rows[0]?.seq;
}

function isSought(table: string, { outcome, reason }: DeliverySearch): Expression<boolean> {
  const conditions = [sql<boolean>`true`];
  if (outcome !== undefined) conditions.push(sql`${sql.ref(`${table}.outcome`)} = ${outcome}`);
  if (reason !== undefined) conditions.push(sql`${sql.ref(`${table}.reason`)} = ${reason}`);
  return sql.join(conditions, sql` and `);
}

/** Undefined: the device is not in the audience, or has no outcome yet. */
export async function findDelivery(
  db: Kysely<Database>,
  appId: number,
  notificationId: string,
  deviceId: number,
): Promise<Delivery | undefined> {
  const ofApp = db
    .selectFrom('notifications')
    .select('id')
    .where('id', '=', notificationId)
    .where('app_id', '=', appId);
  const [delivery] = await listOfDevice(db, ofApp, deviceId, 1);
  return delivery;
}

/**
 * What the device was sent, newest first: its place is looked for in each notification of the app, instead of an index that
 * every send would pay for. Looks at `notifications` of them at most. `cursor` is the id of the notification at which a page was
 * cut, by its length or by that limit, and what comes after it is on the next; null: there is nothing more.
 */
export async function listDeviceDeliveries(
  db: Kysely<Database>,
  appId: number,
  deviceId: number,
  page: { cursor: string | undefined; limit: number; notifications: number },
): Promise<{ deliveries: Delivery[]; cursor: string | null }> {
  let candidates = db
    .selectFrom('notifications')
    .select('id')
    .where('app_id', '=', appId)
    .where('state', '<>', 'draft');
  if (page.cursor !== undefined) candidates = candidates.where('id', '<', page.cursor);
  candidates = candidates.orderBy('id', 'desc');
  const border = await candidates
    .offset(page.notifications - 1)
    .limit(2)
    .execute();
  const last = border.length === 2 ? border[0]!.id : null;
  const found = await listOfDevice(db, candidates.limit(page.notifications), deviceId, page.limit + 1);
  const deliveries = found.slice(0, page.limit);
  return { deliveries, cursor: found.length > page.limit ? deliveries.at(-1)!.notificationId : last };
}

/** Newest notification first. */
async function listOfDevice(
  db: Kysely<Database>,
  notifications: Expression<unknown>,
  deviceId: number,
  limit: number,
): Promise<Delivery[]> {
  const place = sql.ref('place.position');
  const { rows } = await sql<DeliveryLine>`
    select g.notification_id, g.batch_seq, place.position, g.outcome, g.reason, g.http_status, g.attempts, g.in_doubt, g.finished_at,
      nullif(split_part(
        g.provider_message_ids, ' ', bit_count(substring(g.positions for ${place} - g.first_position + 1))::integer
      ), '') as provider_message_id,
      (select external_id from devices where id = ${deviceId}) as external_id
    from (${notifications}) as n
    cross join lateral device_place(n.id, ${deviceId}) as place
    cross join lateral (
      -- The nearest one before it, nearly always: a device late in its batch must not look through all of them.
      select * from delivery_groups g
      where g.notification_id = n.id and g.batch_seq = place.batch_seq and ${isOfGroup('g', place)}
      order by g.first_position desc limit 1
    ) g
    order by n.id desc limit ${limit}
  `.execute(db);
  return rows.map(toDelivery);
}

/** A row of the view `deliveries`, with the device's name. */
interface DeliveryLine {
  notification_id: string;
  batch_seq: number;
  position: number;
  outcome: Outcome;
  reason: string | null;
  http_status: number | null;
  provider_message_id: string | null;
  attempts: number;
  in_doubt: boolean;
  finished_at: Date;
  external_id: string | null;
}

function toDelivery(row: DeliveryLine): Delivery {
  return {
    notificationId: row.notification_id,
    batchSeq: row.batch_seq,
    position: row.position,
    externalId: row.external_id,
    outcome: row.outcome,
    reason: row.reason,
    httpStatus: row.http_status,
    providerMessageId: row.provider_message_id,
    attempts: row.attempts,
    inDoubt: row.in_doubt,
    finishedAt: row.finished_at,
  };
}
