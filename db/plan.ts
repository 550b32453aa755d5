import { type Expression, type Kysely, type RawBuilder, type SqlBool, sql, type Transaction } from 'kysely';
import type { Audience } from '../domain/audience.ts';
import { providerNames } from '../domain/device.ts';
import { audienceFilter } from './audience.ts';
import { forgetLists, forgetMembers } from './audience-lists.ts';
import type { Database } from './schema.ts';

/** How far the plan has come. */
export async function findPlan(
  db: Kysely<Database>,
  notificationId: string,
): Promise<{ isPlanned: boolean; audienceSize: number }> {
  const row = await db
    .selectFrom('notifications')
    .select(['planned_at', 'audience_size'])
    .where('id', '=', notificationId)
    .executeTakeFirstOrThrow();
  return { isPlanned: row.planned_at !== null, audienceSize: row.audience_size };
}

/**
 * Devices that one statement plans at most, in a third of a second: each provider's share is cut into even batches, so small pages
 * would make many that are not full, …
 */
const planPageSize = 100_000;
/** … and looks at: a page that matches hardly any of a hundred million devices ends in a second or two all the same. */
const planScanSize = 2_000_000;
/** Ids that a page spans at most: a batch keeps its devices as integers, from the first one on. */
const planSpan = 2 ** 31 - 1;

/**
 * Devices in a batch, where no setting says: a batch costs Temporal and the worker much the same whatever its size, but while a
 * send is small it must be many, for several workers to share it. So it grows to a quarter of what was planned before it. Above 25 000 the
 * row, which every window changes, would fill a page of PostgreSQL alone.
 */
const batchSizes = { smallest: 10_000, largest: 25_000, shareOfPlanned: 1 / 4 };

function growingBatchSize(planned: number): number {
  const { smallest, largest, shareOfPlanned } = batchSizes;
  return Math.min(largest, Math.max(smallest, Math.floor(planned * shareOfPlanned)));
}

/**
 * Freezes the next page of the audience into batches and moves the plan cursor, in the caller's transaction. The lock on the
 * notification makes a second planner wait and then go on behind the first; when all is planned nothing happens.
 */
export async function planNextPage(
  trx: Transaction<Database>,
  notificationId: string,
  fixedBatchSize: number | undefined,
  scanSize = planScanSize,
): Promise<void> {
  const notification = await trx
    .selectFrom('notifications')
    .select([
      'app_id',
      'audience',
      'audience_list_id',
      'device_ceiling',
      'plan_cursor',
      'batch_count',
      'audience_size',
      'planned_at',
    ])
    .where('id', '=', notificationId)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow();
  if (notification.planned_at !== null || notification.device_ceiling === null) return;
  const audience = notification.audience as Audience;
  const batchSize = fixedBatchSize ?? growingBatchSize(notification.audience_size);
  const { plan_cursor, device_ceiling } = notification;
  const to = Math.min(device_ceiling, plan_cursor + planSpan);
  const filter = audienceFilter(notification.app_id, audience);
  const source = audience.uploaded
    ? uploadedSource(notification.audience_list_id, {
        from: plan_cursor,
        to,
        limit: Math.min(scanSize, planPageSize),
      })
    : audience.externalIds !== undefined || audience.userIds !== undefined
      ? listedSource(filter)
      : scannedSource({ from: plan_cursor, to, limit: scanSize });
  // A page is read in the order of the primary key and ends at its last row. With statistics from before a large import the
  // planner would rather collect and sort all that is left, for every page again.
  if (source.isInOrder) await sql`set local enable_sort = off`.execute(trx);
  const page = sql`
    select id, provider from (${source.devices}) as devices
    where ${filter} and id > ${plan_cursor} and id <= ${to}
    order by id limit ${planPageSize}
  `;

  const arrays = providerNames.map(
    (name) => sql`array_agg(id order by id) filter (where provider = ${name}) as ${sql.ref(name)}`,
  );
  const arraysByProvider = providerNames.map((name) => sql`(${name}, ${sql.ref(name)})`);
  // Even slices per provider: 35 000 devices of one provider make four batches of 8 750.
  const { rows } = await sql<{ devices: number; batches: number; last_id: number | null; scanned_to: number | null }>`
    -- By filter, not by group: sorting by a text costs more than all the rest. In one go, so that the page is kept nowhere.
    with aggregated as materialized (
      select ${sql.join(arrays)}, count(*)::integer as devices, max(id) as last_id from (${page}) as page
    ),
    grouped as (
      select provider, ids, cardinality(ids) as total, ceil(cardinality(ids) / ${batchSize}::numeric)::integer as slices
      from aggregated, lateral (values ${sql.join(arraysByProvider)}) as by_provider (provider, ids)
    ),
    -- Otherwise a slice is cut again for every device in it.
    sliced as materialized (
      select provider, ids[total::bigint * (slice - 1) / slices + 1 : total::bigint * slice / slices] as device_ids
      from grouped, generate_series(1, slices) as slice
    ),
    stored as (
      insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
      select ${notificationId}, ${notification.batch_count} + row_number() over (order by device_ids[1]), provider, device_ids[1],
        array(select (id - device_ids[1])::integer from unnest(device_ids) as id), cardinality(device_ids),
        repeat('0', cardinality(device_ids))::bit varying
      from sliced
      returning 1
    )
    select devices, last_id, (select count(*) from stored) as batches,
      case when devices < ${planPageSize} then ${source.scannedTo} end as scanned_to
    from aggregated
  `.execute(trx);
  const { devices, batches, last_id, scanned_to } = rows[0]!;
  const reached = (devices < planPageSize ? scanned_to : last_id) ?? (to < device_ceiling ? to : null);
  await trx
    .updateTable('notifications')
    .set({
      plan_cursor: reached ?? notification.device_ceiling,
      batch_count: sql`batch_count + ${batches}`,
      audience_size: sql`audience_size + ${devices}`,
      ...(reached === null && { planned_at: sql`clock_timestamp()` }),
    })
    .where('id', '=', notificationId)
    .execute();
  if (!audience.uploaded) return;
  if (reached === null) await forgetLists(trx, notificationId);
  else await forgetMembers(trx, notification.audience_list_id, reached);
}

/** Where a page of the plan looks for its devices. */
interface PlanSource {
  devices: RawBuilder<unknown>;
  isInOrder: boolean;
  /** The last device that was looked at; null when there are no more. In the same statement as the page, so that both see the same. */
  scannedTo: RawBuilder<unknown>;
}

interface IdRange {
  /** Exclusive. */
  from: number;
  to: number;
  /** Devices to look at. */
  limit: number;
}

function scannedSource({ from, to, limit }: IdRange): PlanSource {
  const range = sql`from devices where id > ${from} and id <= ${to} order by id limit ${limit}`;
  return {
    devices: sql`select * ${range}`,
    isInOrder: true,
    scannedTo: lastOf(sql`select id ${range}`, limit),
  };
}

/**
 * Listed devices have indexes of their own. OFFSET 0 has them found by those, and only then looked at for the rest: with such
 * statistics the planner would read the whole primary key in search of two devices.
 */
function listedSource(filter: Expression<SqlBool>): PlanSource {
  return {
    devices: sql`select * from devices where ${filter} offset 0`,
    isInOrder: false,
    scannedTo: sql`null::bigint`,
  };
}

/** The uploaded list is read along its primary key, a page of it at a time, and each of its devices by theirs. */
function uploadedSource(listId: string | null, { from, to, limit }: IdRange): PlanSource {
  const members = sql`
    select device_id as id, user_id from audience_members
    where list_id = ${listId}::uuid and device_id > ${from} and device_id <= ${to} order by device_id limit ${limit}
  `;
  return {
    devices: sql`
      select found.* from (${members}) as member
      cross join lateral (
        select * from devices
        where devices.id = member.id and (member.user_id is null or devices.user_id = member.user_id) offset 0
      ) as found
    `,
    isInOrder: true,
    scannedTo: lastOf(members, limit),
  };
}

function lastOf(range: RawBuilder<unknown>, limit: number): RawBuilder<unknown> {
  return sql`(select case when count(*) = ${limit} then max(id) end from (${range}) as scanned)`;
}
