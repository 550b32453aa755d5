import { type Kysely, sql, type Transaction } from 'kysely';
import type { Claim } from './batches.ts';
import type { Database } from './schema.ts';

/** A device that the provider refused for now. */
export interface Deferral {
  deviceId: number;
  notBefore: Date;
  /** Attempts so far that the provider answered or may have processed. */
  attempts: number;
  /** How many of them ended through no fault of the device. */
  excused: number;
  /** How many of them ended without an answer. */
  doubts: number;
  /** When it was last refused; null: it was not. */
  refusedAt: Date | null;
  reason: string;
  httpStatus: number | null;
}

/** Those of one batch. */
export async function listDeferrals(db: Kysely<Database>, notificationId: string, seq: number): Promise<Deferral[]> {
  const rows = await db
    .selectFrom('deferrals')
    .select(['device_id', 'not_before', 'attempts', 'excused', 'doubts', 'refused_at', 'reason', 'http_status'])
    .where('notification_id', '=', notificationId)
    .where('batch_seq', '=', seq)
    .execute();
  return rows.map((row) => ({
    deviceId: row.device_id,
    notBefore: row.not_before,
    attempts: row.attempts,
    excused: row.excused,
    doubts: row.doubts,
    refusedAt: row.refused_at,
    reason: row.reason,
    httpStatus: row.http_status,
  }));
}

/**
 * With a claim, in its transaction: devices that an earlier claim reserved and left without outcome or answer may have got the message, and
 * that is one attempt and one doubt more. Kept as deferrals, so that a device whose sending ends its worker every time is not
 * sent to for ever. Without effect when a later claim owns the batch; a repeat counts no device twice.
 */
export async function noteDoubts(db: Kysely<Database>, claim: Claim): Promise<void> {
  if (claim.horizon === 0) return;
  await sql`
    with owned as (
      select first_device_id, device_offsets[1:horizon] as device_offsets, recorded from batches
      where notification_id = ${claim.notificationId} and seq = ${claim.seq} and fence = ${claim.fence}
      for update
    ),
    repeated as (
      update deferrals set attempts = attempts + 1, doubts = doubts + 1, dispatched = false
      from owned
      where notification_id = ${claim.notificationId} and batch_seq = ${claim.seq} and dispatched
    )
    insert into deferrals (notification_id, batch_seq, device_id, not_before, attempts, doubts, reason)
    select ${claim.notificationId}, ${claim.seq}, first_device_id + member.device_offset, to_timestamp(0), 1, 1, 'in_doubt'
    from owned cross join unnest(owned.device_offsets) with ordinality as member (device_offset, ordinal)
    where get_bit(recorded, member.ordinal::integer - 1) = 0
    on conflict (notification_id, device_id) do nothing
  `.execute(db);
}

/** Inserts or renews, in a transaction that has checked the fence. Keyed by device: a repeat leaves one row. */
export async function storeDeferrals(trx: Transaction<Database>, claim: Claim, deferrals: Deferral[]): Promise<void> {
  if (deferrals.length === 0) return;
  await sql`
    select store_deferrals(${claim.notificationId}, ${claim.seq}, ${deferralsAsJson(deferrals)})
  `.execute(trx);
}

/** For `store_deferrals`. */
export function deferralsAsJson(deferrals: Deferral[]): string {
  return JSON.stringify(
    deferrals.map(({ deviceId, notBefore, attempts, excused, doubts, refusedAt, reason, httpStatus }) => ({
      ...{ device_id: deviceId, not_before: notBefore, attempts, excused, doubts },
      ...{ refused_at: refusedAt, reason, http_status: httpStatus },
    })),
  );
}

export async function deleteDeferralsOfBatch(trx: Transaction<Database>, claim: Claim): Promise<void> {
  await trx
    .deleteFrom('deferrals')
    .where('notification_id', '=', claim.notificationId)
    .where('batch_seq', '=', claim.seq)
    .execute();
}
