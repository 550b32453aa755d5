import { type Expression, type Kysely, type RawBuilder, type SqlBool, sql, type Transaction } from 'kysely';
import type { Audience } from '../domain/audience.ts';
import { type ProviderName, providerNames } from '../domain/device.ts';
import { outcomes } from '../domain/outcome.ts';
import { audienceFilter } from './audience.ts';
import { forgetLists, forgetMembers } from './audience-lists.ts';
import { FencedError } from './fenced-error.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { HostTrouble } from './provider-hosts.ts';
import type { Database } from './schema.ts';

export interface BatchSummary {
  seq: number;
  provider: ProviderName;
  /** Devices. */
  size: number;
}

/**
 * Devices that one statement plans at most, in a third of a second: each provider's share is cut into even batches, so small pages
 * would make many that are not full, …
 */
const planPageSize = 100_000;
/** … and looks at: one that finds almost nobody among a hundred million devices ends in a second or two all the same. */
const planScanSize = 2_000_000;

/**
 * Freezes the next page of the audience into batches and moves the plan cursor, in the caller's transaction. The lock on the
 * notification makes a second planner wait and then go on behind the first; when all is planned nothing happens.
 */
export async function planNextPage(
  trx: Transaction<Database>,
  notificationId: string,
  batchSize: number,
  scanSize = planScanSize,
): Promise<void> {
  const notification = await trx
    .selectFrom('notifications')
    .select(['app_id', 'audience', 'audience_list_id', 'device_ceiling', 'plan_cursor', 'batch_count', 'planned_at'])
    .where('id', '=', notificationId)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow();
  if (notification.planned_at !== null || notification.device_ceiling === null) return;
  const audience = notification.audience as Audience;
  const { plan_cursor, device_ceiling } = notification;
  const filter = audienceFilter(notification.app_id, audience);
  const source = audience.uploaded
    ? uploadedSource(notification.audience_list_id, {
        from: plan_cursor,
        to: device_ceiling,
        limit: Math.min(scanSize, planPageSize),
      })
    : audience.externalIds !== undefined || audience.userIds !== undefined
      ? listedSource(filter)
      : scannedSource({ from: plan_cursor, to: device_ceiling, limit: scanSize });
  // A page is read in the order of the primary key and ends at its last row. With statistics from before a large import the
  // planner would rather collect and sort all that is left, for every page again.
  if (source.isInOrder) await sql`set local enable_sort = off`.execute(trx);
  const page = sql`
    select id, provider from (${source.devices}) as devices
    where ${filter} and id > ${plan_cursor} and id <= ${device_ceiling}
    order by id limit ${planPageSize}
  `;

  const arrays = providerNames.map(
    (name) => sql`array_agg(id order by id) filter (where provider = ${name}) as ${sql.ref(name)}`,
  );
  const arraysByProvider = providerNames.map((name) => sql`(${name}, ${sql.ref(name)})`);
  // Even slices per provider: 35 000 devices of one provider make four batches of 8 750.
  const { rows } = await sql<{ devices: number; batches: number; last_id: number | null; scanned_to: number | null }>`
    with page as materialized (${page}),
    -- By filter, not by group: sorting by a text costs more than all the rest.
    aggregated as (select ${sql.join(arrays)} from page),
    grouped as (
      select provider, ids, cardinality(ids) as total, ceil(cardinality(ids) / ${batchSize}::numeric)::integer as slices
      from aggregated, lateral (values ${sql.join(arraysByProvider)}) as by_provider (provider, ids)
    ),
    sliced as (
      select provider, ids[total::bigint * (slice - 1) / slices + 1 : total::bigint * slice / slices] as device_ids
      from grouped, generate_series(1, slices) as slice
    ),
    stored as (
      insert into batches (notification_id, seq, provider, device_ids, size)
      select ${notificationId}, ${notification.batch_count} + row_number() over (order by device_ids[1]), provider,
        device_ids, cardinality(device_ids)
      from sliced
      returning 1
    )
    select (select count(*) from page) as devices, (select count(*) from stored) as batches,
      (select max(id) from page) as last_id,
      case when (select count(*) from page) < ${planPageSize} then ${source.scannedTo} end as scanned_to
  `.execute(trx);
  const { devices, batches, last_id, scanned_to } = rows[0]!;
  const reached = devices < planPageSize ? scanned_to : last_id;
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

/** Unfinished batches above `afterSeq`, in order. */
export function listOpenBatches(
  db: Kysely<Database>,
  notificationId: string,
  afterSeq: number,
  limit: number,
): Promise<BatchSummary[]> {
  return db
    .selectFrom('batches')
    .select(['seq', 'provider', 'size'])
    .where('notification_id', '=', notificationId)
    .where('seq', '>', afterSeq)
    .where('finished_at', 'is', null)
    .orderBy('seq')
    .limit(limit)
    .execute();
}

/** A batch and the right to write its outcomes, until somebody claims it again. */
export interface Claim {
  notificationId: string;
  seq: number;
  provider: ProviderName;
  fence: number;
  /** Positions below it may have been handed to the provider by an earlier claim. */
  horizon: number;
  deviceIds: number[];
  /** Devices of the whole notification that this provider has accepted. */
  accepted: number;
}

/** Makes every earlier claim of the batch a zombie. Undefined: the batch is finished. */
export async function claimBatch(
  db: Kysely<Database>,
  notificationId: string,
  seq: number,
): Promise<Claim | undefined> {
  const row = await db
    .updateTable('batches')
    .set({ fence: sql`fence + 1` })
    .where('notification_id', '=', notificationId)
    .where('seq', '=', seq)
    .where('finished_at', 'is', null)
    .returning(['provider', 'fence', 'horizon', 'device_ids'])
    .returning((eb) =>
      eb
        .selectFrom('batches as others')
        .whereRef('others.notification_id', '=', 'batches.notification_id')
        .whereRef('others.provider', '=', 'batches.provider')
        .select(({ fn }) => fn.sum<number>('others.accepted').as('accepted'))
        .as('accepted'),
    )
    .executeTakeFirst();
  return (
    row && {
      notificationId,
      seq,
      provider: row.provider,
      fence: row.fence,
      horizon: row.horizon,
      deviceIds: row.device_ids,
      accepted: row.accepted ?? 0,
    }
  );
}

/** Locks the batch for the caller's transaction. @throws {FencedError} when a later claim owns it. */
export async function lockBatch(trx: Transaction<Database>, claim: Claim): Promise<void> {
  const owned = await trx
    .selectFrom('batches')
    .select('seq')
    .where('notification_id', '=', claim.notificationId)
    .where('seq', '=', claim.seq)
    .where('fence', '=', claim.fence)
    .forUpdate()
    .executeTakeFirst();
  if (!owned) throw new FencedError(claim);
}

export type Reservation =
  | { answer: 'go'; granted: number; hosts: HostTrouble[] }
  | { answer: 'wait'; waitMs: number }
  | { answer: 'fenced' | 'paused' | 'halted' | 'cancelled' | 'expired' };

const reserveWindowStatement: PreparedStatement = {
  name: 'reserve_window',
  text: `select answer, granted, wait_ms, hosts
    from reserve_window($1, $2, $3, $4::integer[], $5::bigint[], $6, $7::text[], $8)`,
};

/** One window, reserved before it is dispatched; see `migrations/0005-hosts-and-months.ts`. */
export async function reserveWindow(
  client: StatementClient,
  claim: Claim,
  window: { positions: number[]; deferredIds: number[]; providerScope: string; hosts?: string[]; credential?: string },
): Promise<Reservation> {
  const { rows } = await client.query<{
    answer: Reservation['answer'];
    granted: number;
    wait_ms: number;
    hosts: { host: string; wait_ms: number; reason: string; is_unreachable: boolean; is_let_through: boolean }[] | null;
  }>({
    ...reserveWindowStatement,
    values: [
      ...[claim.notificationId, claim.seq, claim.fence],
      ...[numberArray(window.positions), numberArray(window.deferredIds), window.providerScope],
      ...[window.hosts ?? [], window.credential ?? ''],
    ],
  });
  const { answer, granted, wait_ms, hosts } = rows[0]!;
  if (answer === 'go') {
    const troubles = (hosts ?? []).map((host) => ({
      ...{ host: host.host, waitMs: host.wait_ms, reason: host.reason },
      ...{ isUnreachable: host.is_unreachable, isLetThrough: host.is_let_through },
    }));
    return { answer, granted, hosts: troubles };
  }
  if (answer === 'wait') return { answer, waitMs: wait_ms };
  return { answer };
}

/**
 * Gives back what was reserved and never dispatched, so that it is not in doubt later: fresh devices from `position` on and
 * these deferred devices. Without effect when a later claim owns the batch.
 */
export async function returnReserved(
  trx: Transaction<Database>,
  claim: Claim,
  undispatched: { position: number | undefined; deferredIds: number[] },
): Promise<void> {
  const owned = await trx
    .updateTable('batches')
    .set({ horizon: undispatched.position ?? sql<number>`horizon` })
    .where('notification_id', '=', claim.notificationId)
    .where('seq', '=', claim.seq)
    .where('fence', '=', claim.fence)
    .returning('seq')
    .executeTakeFirst();
  if (!owned || undispatched.deferredIds.length === 0) return;
  await trx
    .updateTable('deferrals')
    .set({ dispatched: false })
    .where('notification_id', '=', claim.notificationId)
    .where('device_id', '=', sql<number>`any(${undispatched.deferredIds}::bigint[])`)
    .execute();
}

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
 * Whether somebody of the notification has neither an outcome nor a deferral: not planned, not reserved, or under way. Batches that no
 * window has gone through yet are looked for first: deferrals need be counted only when there is none.
 */
export async function isAnybodyUntried(db: Kysely<Database>, notificationId: string): Promise<boolean> {
  const total = sql.join(
    outcomes.map((outcome) => sql.ref(`b.${outcome}`)),
    sql` + `,
  );
  const { rows } = await sql<{ is_untried: boolean }>`
    select n.planned_at is null
      or exists (
        select from batches b where b.notification_id = n.id and b.finished_at is null and b.horizon < b.size
      )
      or exists (
        select from batches b where b.notification_id = n.id and b.finished_at is null
          and b.size > ${total} + (
            select count(*) from deferrals f where f.notification_id = b.notification_id and f.batch_seq = b.seq
          )
      ) as is_untried
    from notifications n where n.id = ${notificationId}
  `.execute(db);
  return rows[0]!.is_untried;
}
