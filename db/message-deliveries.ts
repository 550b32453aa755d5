import { type Kysely, type RawBuilder, sql } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { MessageEntry } from './messages.ts';
import type { Database } from './schema.ts';

/** What became of one device of a message to one person. */
export interface MessageDelivery extends MessageEntry, MessageDeliveryCursor {
  messageId: string;
  /** When the message was accepted. */
  createdAt: Date;
  /** Of the device as it is now; null: it was deleted since, or nobody is known to own it. */
  userId: string | null;
}

/** The place of an entry. */
export interface MessageDeliveryCursor {
  laneId: number;
  /** In its lane. */
  position: number;
}

interface Span {
  /** Included. */
  since?: Date | undefined;
  /** Not included. */
  until?: Date | undefined;
}

/** Positions that one statement looks at: a lane may have hundreds of millions, and few of them from the time that is asked for. */
const positionsPerQuery = 10_000;

/**
 * Entries of the app's messages, accepted in this time: lane by lane, each in the order in which it accepted them, which is the order on
 * disk and costs no index. `cursor` is the last of the page before.
 */
export async function listMessageDeliveries(
  db: Kysely<Database>,
  appId: number,
  span: Span,
  page: { cursor?: MessageDeliveryCursor | undefined; limit: number },
): Promise<MessageDelivery[]> {
  const { cursor, limit } = page;
  let query = db.selectFrom('lanes').select(['id', 'provider']).where('app_id', '=', appId).orderBy('id');
  if (cursor) query = query.where('id', '>=', cursor.laneId);
  const deliveries: MessageDelivery[] = [];
  for (const lane of await query.execute()) {
    const { first, last } = await endsOf(db, lane.id, span);
    let from = Math.max(first, cursor?.laneId === lane.id ? cursor.position + 1 : 0);
    for (; from <= last && deliveries.length < limit; from += positionsPerQuery) {
      deliveries.push(...(await readEntries(db, lane, from, span, limit - deliveries.length)));
    }
    if (deliveries.length >= limit) break;
  }
  return deliveries;
}

/** Positions between which the lane's entries of these weeks are: found at once, for weeks are partitions. */
async function endsOf(
  db: Kysely<Database>,
  laneId: number,
  { since, until }: Span,
): Promise<{ first: number; last: number }> {
  const week = (instant: Date, weeks: number) =>
    floorOf(sql`date_trunc('week', ${instant}::timestamptz, 'UTC') + make_interval(weeks => ${weeks})`);
  const after = since ? sql`and message_id >= ${week(since, 0)}` : sql``;
  const before = until ? sql`and message_id < ${week(until, 1)}` : sql``;
  const end = (order: 'asc' | 'desc') => sql`(
    select position from message_entries where lane_id = ${laneId} ${after} ${before} order by position ${sql.raw(order)} limit 1
  )`;
  const { rows } = await sql<{ first: number | null; last: number | null }>`
    select ${end('asc')} as first, ${end('desc')} as last
  `.execute(db);
  const { first, last } = rows[0]!;
  return { first: first ?? 0, last: last ?? -1 };
}

async function readEntries(
  db: Kysely<Database>,
  lane: { id: number; provider: ProviderName },
  from: number,
  { since, until }: Span,
  limit: number,
): Promise<MessageDelivery[]> {
  const { rows } = await sql<Omit<MessageDelivery, 'laneId' | 'provider'>>`
    select e.position, e.message_id as "messageId", uuid_v7_instant(e.message_id) as "createdAt", d.external_id as "externalId",
      d.user_id as "userId", e.outcome, e.reason, e.http_status as "httpStatus", e.provider_message_id as "providerMessageId",
      e.attempts, e.doubts > 0 as "inDoubt", e.finished_at as "finishedAt",
      case when e.outcome is null and e.not_before > to_timestamp(0) then e.not_before end as "notBefore"
    from message_entries e left join devices d on d.id = e.device_id
    where e.lane_id = ${lane.id} and e.position >= ${from} and e.position < ${from + positionsPerQuery}
      ${since ? sql`and e.message_id >= ${floorOf(sql`${since}::timestamptz`)}` : sql``}
      ${until ? sql`and e.message_id < ${floorOf(sql`${until}::timestamptz`)}` : sql``}
    order by e.position limit ${limit}
  `.execute(db);
  return rows.map((row) => ({ ...row, laneId: lane.id, provider: lane.provider }));
}

/** A UUID v7 knows no instant before 1970. */
function floorOf(instant: RawBuilder<unknown>): RawBuilder<string> {
  return sql`uuid_v7_floor(greatest(${instant}, to_timestamp(0)))`;
}
