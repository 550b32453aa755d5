import { type Kysely, sql, type Transaction } from 'kysely';
import type { Claim } from './batches.ts';
import type { Database } from './schema.ts';

/** A device that the provider refused for now. */
export interface Deferral {
  deviceId: number;
  notBefore: Date;
  /** Attempts so far that the provider answered or may have processed. */
  attempts: number;
  /** How many of them ended without an answer. */
  doubts: number;
  reason: string;
  httpStatus: number | null;
}

/** Those of one batch. `dispatched`: a window that held the device was reserved and no answer was recorded: it is in doubt. */
export async function listDeferrals(
  db: Kysely<Database>,
  notificationId: string,
  seq: number,
): Promise<(Deferral & { dispatched: boolean })[]> {
  const rows = await db
    .selectFrom('deferrals')
    .select(['device_id', 'not_before', 'attempts', 'doubts', 'dispatched', 'reason', 'http_status'])
    .where('notification_id', '=', notificationId)
    .where('batch_seq', '=', seq)
    .execute();
  return rows.map((row) => ({
    deviceId: row.device_id,
    notBefore: row.not_before,
    attempts: row.attempts,
    doubts: row.doubts,
    dispatched: row.dispatched,
    reason: row.reason,
    httpStatus: row.http_status,
  }));
}

/** Inserts or renews, in a transaction that has checked the fence. Keyed by device: a repeat leaves one row. */
export async function storeDeferrals(trx: Transaction<Database>, claim: Claim, deferrals: Deferral[]): Promise<void> {
  if (deferrals.length === 0) return;
  await sql`
    insert into deferrals
      (notification_id, batch_seq, device_id, not_before, attempts, doubts, reason, http_status, dispatched)
    select ${claim.notificationId}, ${claim.seq}, u.device_id, u.not_before, u.attempts, u.doubts, u.reason, u.http_status, false
    from unnest(
      ${deferrals.map((d) => d.deviceId)}::bigint[],
      ${deferrals.map((d) => d.notBefore)}::timestamptz[],
      ${deferrals.map((d) => d.attempts)}::smallint[],
      ${deferrals.map((d) => d.doubts)}::smallint[],
      ${deferrals.map((d) => d.reason)}::text[],
      ${deferrals.map((d) => d.httpStatus)}::smallint[]
    ) as u (device_id, not_before, attempts, doubts, reason, http_status)
    on conflict (notification_id, device_id) do update set
      not_before = excluded.not_before, attempts = excluded.attempts, doubts = excluded.doubts,
      reason = excluded.reason, http_status = excluded.http_status, dispatched = false
  `.execute(trx);
}
