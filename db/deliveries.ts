import { CompiledQuery, type Kysely, sql, type Transaction } from 'kysely';
import { cutText } from '../domain/cut-text.ts';
import type { Totals } from '../domain/notification.ts';
import { emptyOutcomeCounts, type Outcome, type OutcomeCounts, outcomes } from '../domain/outcome.ts';
import type { Claim } from './batches.ts';
import { FencedError } from './fenced-error.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/** How one device ended; one row, written once. */
export interface DeliveryRecord {
  deviceId: number;
  outcome: Outcome;
  /** The provider's word, or ours; no NUL (see `cleanReason`). */
  reason: string | null;
  httpStatus: number | null;
  providerMessageId: string | null;
  attempts: number;
  /** The provider may have got it more than once. */
  inDoubt: boolean;
}

/** A device whose token died with this send. */
export interface Retirement {
  deviceId: number;
  /** The token that was sent to: a device that has another one by now stays alive. */
  deviceToken: string;
  /** A registration after this instant stays alive. */
  invalidAt: Date;
  reason: string;
}

/**
 * Makes sure, before anybody of a batch is sent to, that outcomes of it can be recorded: makes the month's partition where it is
 * missing, and inserts an outcome that is taken back. A repeat is harmless.
 * @throws what would keep the outcomes from being recorded
 */
export async function rehearseRecording(db: Kysely<Database>, notificationId: string, seq: number): Promise<void> {
  await sql`select rehearse_recording(${notificationId}, ${seq})`.execute(db);
}

/** The partition of this notification's month, where it is missing: for whoever records without sending. */
export async function ensureDeliveryPartition(db: Kysely<Database>, notificationId: string): Promise<void> {
  await sql`select create_delivery_partition(uuid_v7_instant(${notificationId}))`.execute(db);
}

const counted = outcomes.map((outcome, i) => `${outcome} + ($4::integer[])[${i + 1}]`);

/**
 * Checks the fence ($1 notification, $2 seq, $3 fence), adds $4, in the order of `outcomes`, to the batch's counts, and closes the
 * batch when the last device has its outcome. Before the outcomes in every transaction that records some: the row lock keeps
 * a new claim waiting until they are there.
 */
const addToBatch = `
  update batches set ${outcomes.map((outcome, i) => `${outcome} = ${counted[i]}`).join(', ')},
    finished_at = case when ${counted.join(' + ')} = size then clock_timestamp() end
  where notification_id = $1 and seq = $2 and fence = $3 and finished_at is null
  returning finished_at`;

/**
 * Nearly all rows of a chunk differ in device and message id alone. So these two are arrays ($5, $6), and all that rows have in
 * common is one element for each slice of them ($7 to $13): for PostgreSQL about half the work of a COPY, which reads every
 * column of every row from text.
 */
const recordDeliveriesStatement: PreparedStatement = {
  name: 'record_deliveries',
  text: `
    with batch as (${addToBatch}), recorded as (
      insert into deliveries (notification_id, batch_seq, device_id, provider_message_id, outcome, http_status, attempts,
        in_doubt, reason)
      select $1, $2, device.id, device.provider_message_id, alike.outcome, alike.http_status, alike.attempts,
        alike.in_doubt, alike.reason
      from batch
      cross join unnest($7::delivery_outcome[], $8::smallint[], $9::smallint[], $10::boolean[], $11::text[],
        $12::integer[], $13::integer[]) as alike (outcome, http_status, attempts, in_doubt, reason, first, last)
      cross join lateral unnest(($5::bigint[])[alike.first:alike.last], ($6::text[])[alike.first:alike.last])
        as device (id, provider_message_id)
    )
    select finished_at from batch`,
};

/**
 * Records outcomes under the fence, in one statement: all of them or none. A second row for a device breaks the primary key.
 * @returns true when the last device of the batch has its outcome now
 * @throws {FencedError}
 */
export async function recordDeliveries(
  client: StatementClient,
  claim: Claim,
  records: DeliveryRecord[],
): Promise<boolean> {
  const groups = groupAlike(records);
  const firsts = groups.map(([first]) => first!);
  const sizes = groups.map((group) => group.length);
  const lasts = sizes.map((_, i) => sizes.slice(0, i + 1).reduce((sum, size) => sum + size));
  const sorted = groups.flat();
  const counts = emptyOutcomeCounts();
  groups.forEach((group, i) => {
    counts[firsts[i]!.outcome] += group.length;
  });
  const { rows } = await client.query<{ finished_at: Date | null }>({
    ...recordDeliveriesStatement,
    values: [
      claim.notificationId,
      claim.seq,
      claim.fence,
      outcomes.map((outcome) => counts[outcome]),
      numberArray(sorted.map((record) => record.deviceId)),
      sorted.some((record) => record.providerMessageId !== null)
        ? sorted.map((record) => record.providerMessageId)
        : null,
      firsts.map((record) => record.outcome),
      firsts.map((record) => record.httpStatus),
      firsts.map((record) => record.attempts),
      firsts.map((record) => record.inDoubt),
      firsts.map((record) => record.reason),
      lasts.map((last, i) => last - sizes[i]! + 1),
      lasts,
    ],
  });
  const [row] = rows;
  if (!row) throw new FencedError(claim);
  return row.finished_at !== null;
}

/** Records that differ in device and message id alone, by device id: PostgreSQL fills its index faster in order. */
function groupAlike(records: DeliveryRecord[]): DeliveryRecord[][] {
  const groups: DeliveryRecord[][] = [];
  for (const record of records) {
    const group = groups.find(([first]) => isAlike(first!, record));
    if (group) group.push(record);
    else groups.push([record]);
  }
  for (const group of groups) group.sort((a, b) => a.deviceId - b.deviceId);
  return groups;
}

function isAlike(a: DeliveryRecord, b: DeliveryRecord): boolean {
  return (
    a.outcome === b.outcome &&
    a.httpStatus === b.httpStatus &&
    a.attempts === b.attempts &&
    a.inDoubt === b.inDoubt &&
    a.reason === b.reason
  );
}

/** Provider text that PostgreSQL can store: NUL is legal JSON but no legal text. Cut to 200 characters. */
export function cleanReason(reason: string): string {
  return cutText(reason.replaceAll('\u0000', '\ufffd').toWellFormed(), 200);
}

export async function deleteDeferrals(trx: Transaction<Database>, claim: Claim, deviceIds: number[]): Promise<void> {
  if (deviceIds.length === 0) return;
  await trx
    .deleteFrom('deferrals')
    .where('notification_id', '=', claim.notificationId)
    .where('device_id', '=', sql<number>`any(${deviceIds}::bigint[])`)
    .execute();
}

/** Only rows that still have the token that was sent to, registered no later than the provider's instant. */
export async function retireDevices(trx: Transaction<Database>, retirements: Retirement[]): Promise<void> {
  if (retirements.length === 0) return;
  // In order of id, as every other writer of many devices: two transactions then cannot wait for each other.
  const sorted = retirements.toSorted((a, b) => a.deviceId - b.deviceId);
  await sql`
    with dead as (
      select d.id, u.reason
      from unnest(
        ${sorted.map((r) => r.deviceId)}::bigint[],
        ${sorted.map((r) => r.deviceToken)}::text[],
        ${sorted.map((r) => r.invalidAt)}::timestamptz[],
        ${sorted.map((r) => r.reason)}::text[]
      ) as u (id, device_token, invalid_at, reason)
      join devices d on d.id = u.id and d.device_token = u.device_token
        and d.retired_at is null and d.registered_at <= u.invalid_at
      order by d.id
      for update of d
    )
    update devices set retired_at = now(), retired_reason = dead.reason, updated_at = now()
    from dead where devices.id = dead.id
  `.execute(trx);
}

/** The devices of a batch that have their outcome already. */
export async function listRecordedDeviceIds(db: Kysely<Database>, claim: Claim): Promise<number[]> {
  const rows = await db
    .selectFrom('deliveries')
    .select('device_id')
    .where('notification_id', '=', claim.notificationId)
    .where('device_id', '=', sql<number>`any(${claim.deviceIds}::bigint[])`)
    .execute();
  return rows.map((row) => row.device_id);
}

/**
 * Records one outcome for everybody in a claimed batch who has none, in one statement: after a cancellation or an expiry.
 * Who may have got the message already (in doubt) ends as `unknown` instead.
 * @throws {FencedError}
 */
export async function settleBatch(
  trx: Transaction<Database>,
  claim: Claim,
  outcome: 'cancelled' | 'expired',
): Promise<OutcomeCounts> {
  const { rows } = await sql<{ outcome: Outcome; devices: number }>`
    with recorded as (
      insert into deliveries
        (device_id, notification_id, batch_seq, outcome, http_status, attempts, in_doubt, reason, finished_at)
      select member.device_id, ${claim.notificationId}, ${claim.seq},
        (case when doubt.is then 'unknown' else ${outcome} end)::delivery_outcome,
        f.http_status, coalesce(f.attempts, 0) + reserved.is::integer, doubt.is, f.reason, clock_timestamp()
      from batches b
      cross join unnest(b.device_ids) with ordinality as member (device_id, ordinal)
      left join deferrals f on f.notification_id = b.notification_id and f.device_id = member.device_id
      -- Reserved and not answered: an attempt that no deferral has counted yet.
      cross join lateral (select coalesce(f.dispatched, member.ordinal <= b.horizon) as is) as reserved
      cross join lateral (select reserved.is or coalesce(f.doubts, 0) > 0 as is) as doubt
      where b.notification_id = ${claim.notificationId} and b.seq = ${claim.seq} and b.fence = ${claim.fence}
        and b.finished_at is null
        and not exists (
          select from deliveries e where e.notification_id = b.notification_id and e.device_id = member.device_id
        )
      returning outcome
    )
    select outcome, count(*) as devices from recorded group by outcome
  `.execute(trx);
  const counts = emptyOutcomeCounts();
  for (const row of rows) counts[row.outcome] = row.devices;
  const added = outcomes.map((name) => counts[name]);
  const { rows: batch } = await trx.executeQuery(
    CompiledQuery.raw(addToBatch, [claim.notificationId, claim.seq, claim.fence, added]),
  );
  if (batch.length === 0) throw new FencedError(claim);
  await trx
    .deleteFrom('deferrals')
    .where('notification_id', '=', claim.notificationId)
    .where('batch_seq', '=', claim.seq)
    .execute();
  return counts;
}

/** Counted from the rows themselves, not from the batches' running counts. */
export async function countTotals(db: Kysely<Database>, notificationId: string): Promise<Totals & { devices: number }> {
  const rows = await db
    .selectFrom('deliveries')
    .select(['outcome', 'reason', 'in_doubt'])
    .select((eb) => eb.fn.countAll<number>().as('devices'))
    .where('notification_id', '=', notificationId)
    .groupBy(['outcome', 'reason', 'in_doubt'])
    .execute();
  const totals = { outcomes: emptyOutcomeCounts(), reasons: {} as Totals['reasons'], inDoubt: 0, devices: 0 };
  for (const row of rows) {
    totals.outcomes[row.outcome] += row.devices;
    totals.devices += row.devices;
    if (row.in_doubt) totals.inDoubt += row.devices;
    if (row.reason !== null) {
      totals.reasons[row.outcome] ??= {};
      const reasons = totals.reasons[row.outcome]!;
      reasons[row.reason] = (reasons[row.reason] ?? 0) + row.devices;
    }
  }
  return totals;
}

/**
 * The audit: every batch whose frozen audience, running counts and rows disagree, by outcome and by the sum of device ids, and
 * every row outside its batch. Empty when the books are right; a finished notification must also have no batch open.
 */
export async function auditBooks(
  db: Kysely<Database>,
  notificationId: string,
): Promise<{ seq: number; size: number; counted: number; rows: number; isFinished: boolean }[]> {
  const ofRows = sql.join(
    outcomes.map((outcome) => sql`count(*) filter (where outcome = ${sql.lit(outcome)}) as ${sql.ref(outcome)}`),
  );
  const counts = (table: string) =>
    sql.join(outcomes.map((outcome) => sql`coalesce(${sql.ref(`${table}.${outcome}`)}, 0)`));
  const counted = sql.join(
    outcomes.map((outcome) => sql.ref(`b.${outcome}`)),
    sql` + `,
  );
  const { rows } = await sql<{ seq: number; size: number; counted: number; rows: number; finished: boolean }>`
    with b as (
      select *, (select sum(id) from unnest(device_ids) as id) as ids from batches where notification_id = ${notificationId}
    ),
    r as (
      select batch_seq, count(*) as rows, sum(device_id) as ids, ${ofRows}
      from deliveries where notification_id = ${notificationId} group by batch_seq
    )
    select coalesce(b.seq, r.batch_seq) as seq, coalesce(b.size, 0) as size, coalesce(r.rows, 0) as rows,
      coalesce(${counted}, 0) as counted, b.finished_at is not null as finished
    from b full join r on r.batch_seq = b.seq
    where b.seq is null
      or (${counts('r')}) is distinct from (${counts('b')})
      or (b.finished_at is not null) is distinct from (b.size = coalesce(r.rows, 0))
      or (b.finished_at is not null and r.ids is distinct from b.ids)
    order by 1
  `.execute(db);
  return rows.map(({ finished, ...row }) => ({ ...row, isFinished: finished }));
}

export interface Delivery extends DeliveryRecord {
  notificationId: string;
  batchSeq: number;
  finishedAt: Date;
  /** Undefined when the device was deleted since. */
  externalId: string | null;
}

/** Outcomes of one notification in order of device id; `cursor` is the last device id of the page before. */
export async function listDeliveries(
  db: Kysely<Database>,
  notificationId: string,
  page: { cursor?: number | undefined; limit: number; outcome?: Outcome | undefined; reason?: string | undefined },
): Promise<Delivery[]> {
  let query = selectDeliveries(db)
    .where('deliveries.notification_id', '=', notificationId)
    .orderBy('deliveries.device_id')
    .limit(page.limit);
  if (page.cursor !== undefined) query = query.where('deliveries.device_id', '>', page.cursor);
  if (page.outcome !== undefined) query = query.where('outcome', '=', page.outcome);
  if (page.reason !== undefined) query = query.where('reason', '=', page.reason);
  return (await query.execute()).map(toDelivery);
}

/**
 * What the device was sent, newest first: a probe of the primary key for each notification of the app, instead of an index that
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
  const rows = await selectDeliveries(db)
    .where('deliveries.device_id', '=', deviceId)
    .where('deliveries.notification_id', 'in', candidates.limit(page.notifications))
    .orderBy('deliveries.notification_id', 'desc')
    .limit(page.limit + 1)
    .execute();
  const shown = rows.slice(0, page.limit);
  return {
    deliveries: shown.map(toDelivery),
    cursor: rows.length > page.limit ? shown.at(-1)!.notification_id : last,
  };
}

function selectDeliveries(db: Kysely<Database>) {
  return db
    .selectFrom('deliveries')
    .leftJoin('devices', 'devices.id', 'deliveries.device_id')
    .selectAll('deliveries')
    .select('devices.external_id');
}

function toDelivery(row: Awaited<ReturnType<ReturnType<typeof selectDeliveries>['execute']>>[number]): Delivery {
  return {
    deviceId: row.device_id,
    externalId: row.external_id,
    notificationId: row.notification_id,
    batchSeq: row.batch_seq,
    outcome: row.outcome,
    reason: row.reason,
    httpStatus: row.http_status,
    providerMessageId: row.provider_message_id,
    attempts: row.attempts,
    inDoubt: row.in_doubt,
    finishedAt: row.finished_at,
  };
}
