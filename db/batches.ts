import { type Kysely, sql, type Transaction } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import { outcomes } from '../domain/outcome.ts';
import { FencedError } from './fenced-error.ts';
import type { Database } from './schema.ts';

export interface BatchSummary {
  seq: number;
  provider: ProviderName;
  /** Devices. */
  size: number;
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

export async function isAnyBatchClaimed(db: Kysely<Database>, notificationId: string): Promise<boolean> {
  const claimed = await db
    .selectFrom('batches')
    .select('seq')
    .where('notification_id', '=', notificationId)
    .where('fence', '>', 0)
    .limit(1)
    .executeTakeFirst();
  return claimed !== undefined;
}

/** A batch and the right to write its outcomes, until another worker claims it. */
export interface Claim {
  notificationId: string;
  seq: number;
  provider: ProviderName;
  fence: number;
  /** Positions below it may have been handed to the provider by an earlier claim. */
  horizon: number;
  /** Ascending. */
  deviceIds: number[];
  /** At the moment of the claim, a `1` for each device with an outcome and a `0` for each without. */
  recorded: string;
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
    .returning(['provider', 'fence', 'horizon', 'first_device_id', 'device_offsets', 'recorded'])
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
      deviceIds: row.device_offsets.map((offset) => row.first_device_id + offset),
      recorded: row.recorded,
      accepted: row.accepted ?? 0,
    }
  );
}

/** Where the device stands in the batch's frozen array. @throws when it does not. */
export function positionOf({ seq, deviceIds }: Claim, deviceId: number): number {
  let [low, high] = [0, deviceIds.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (deviceIds[middle]! < deviceId) low = middle + 1;
    else high = middle;
  }
  if (deviceIds[low] !== deviceId) throw new Error(`device ${deviceId} is not in batch ${seq}`);
  return low;
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

/** Whether every device of the batch has its outcome. */
export async function isBatchFinished(db: Kysely<Database>, { notificationId, seq }: Claim): Promise<boolean> {
  const row = await db
    .selectFrom('batches')
    .select('finished_at')
    .where('notification_id', '=', notificationId)
    .where('seq', '=', seq)
    .executeTakeFirstOrThrow();
  return row.finished_at !== null;
}

/**
 * Whether a device of the notification has neither an outcome nor a deferral: not planned, not reserved, or under way. Batches that no
 * window has gone through yet are looked for first: deferrals need be counted only when there is none.
 */
export async function hasUntriedDevices(db: Kysely<Database>, notificationId: string): Promise<boolean> {
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
