import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** What devices told of a send. */
export interface EventCount {
  type: string;
  /** Each telling. */
  events: number;
  /** Each device once. */
  devices: number;
}

/** The place of an hour's count among those of its send. */
export interface HourCursor {
  hour: Date;
  type: string;
}

/** Of a notification or message of the app, by type. */
export function listEventCounts(db: Kysely<Database>, appId: number, sendId: string): Promise<EventCount[]> {
  return db
    .selectFrom('event_counts')
    .select(['type', sumOf('events').as('events'), sumOf('devices').as('devices')])
    .where('app_id', '=', appId)
    .where('send_id', '=', sendId)
    .groupBy('type')
    .orderBy('type')
    .execute();
}

/** The same by hour and type, in this order. A device counts in the hour of what it told first. `cursor`: the last of the page before. */
export function listEventHours(
  db: Kysely<Database>,
  appId: number,
  sendId: string,
  page: { cursor: HourCursor | undefined; limit: number },
): Promise<(EventCount & HourCursor)[]> {
  let counts = db
    .selectFrom('event_counts')
    .select(['hour', 'type', sumOf('events').as('events'), sumOf('devices').as('devices')])
    .where('app_id', '=', appId)
    .where('send_id', '=', sendId);
  if (page.cursor !== undefined) {
    const { hour, type } = page.cursor;
    counts = counts.where(sql<boolean>`(hour, type) > (${hour}::timestamptz, ${type}::text)`);
  }
  return counts.groupBy(['hour', 'type']).orderBy('hour').orderBy('type').limit(page.limit).execute();
}

function sumOf(column: 'events' | 'devices') {
  return sql<number>`sum(${sql.ref(column)})::bigint`;
}

/**
 * Drops what was told of sends of whole months that ended so many months ago, unless one of them was launched since. The statement must
 * not wait for long: it holds up all that is told meanwhile.
 * @returns the months
 */
export async function dropEventMonths(db: Kysely<Database>, months: number): Promise<string[]> {
  const { rows } = await sql<{ month: string }>`
    select * from drop_event_months(now() - make_interval(months => ${months})) as month
  `.execute(db);
  return rows.map(({ month }) => month);
}
