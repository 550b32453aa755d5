import { type Kysely, sql } from 'kysely';
import { emptyOutcomeCounts, type Outcome, outcomes } from '../domain/outcome.ts';
import { addToBatch, type Claim } from './batches.ts';
import { FencedError } from './fenced-error.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/** How one device ended; one row, written once. */
export interface DeliveryRecord {
  deviceId: number;
  outcome: Outcome;
  /** The provider's word, or ours; storable (see `storableReason`). */
  reason: string | null;
  httpStatus: number | null;
  providerMessageId: string | null;
  attempts: number;
  /** The provider may have got it more than once. */
  inDoubt: boolean;
}

/**
 * Makes sure, before a device of a batch is sent to, that its outcome can be recorded: makes the month's partition where it is
 * missing, and inserts an outcome that is taken back. A repeat is harmless.
 * @throws what would keep the outcomes from being recorded
 */
export async function rehearseRecording(db: Kysely<Database>, notificationId: string, seq: number): Promise<void> {
  await sql`select rehearse_recording(${notificationId}, ${seq})`.execute(db);
}

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

/** Whether the device has its outcome already. */
export async function isRecorded(db: Kysely<Database>, { notificationId }: Claim, deviceId: number): Promise<boolean> {
  const row = await db
    .selectFrom('deliveries')
    .select('device_id')
    .where('notification_id', '=', notificationId)
    .where('device_id', '=', deviceId)
    .executeTakeFirst();
  return row !== undefined;
}
