import { type Kysely, sql } from 'kysely';
import type { Claim } from './batches.ts';
import { type DeliveryGroup, positionRows } from './delivery-groups.ts';
import { FencedError } from './fenced-error.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/**
 * Makes sure, before a device of a batch is sent to, that its outcome can be recorded: makes the month's partition where it is
 * missing, and inserts an outcome that is taken back. A repeat is harmless.
 * @throws what would keep the outcomes from being recorded
 */
export async function rehearseRecording(db: Kysely<Database>, notificationId: string, seq: number): Promise<void> {
  await sql`select rehearse_groups(${notificationId}, ${seq})`.execute(db);
}

const recordGroupsStatement: PreparedStatement = {
  name: 'record_groups',
  text: 'select record_groups($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) as is_finished',
};

/**
 * Records outcomes under the fence: all of them or none. The batch's counts and bitmap follow by a trigger, which refuses a second
 * outcome for a device; see `migrations/0009-delivery-groups.ts`.
 * @returns true when the last device of the batch has its outcome now
 * @throws {FencedError}
 */
export async function recordDeliveries(
  client: StatementClient,
  claim: Claim,
  groups: DeliveryGroup[],
): Promise<boolean> {
  const rows = groups.flatMap((group) => positionRows(group).map((row) => ({ ...group, ...row })));
  const { rows: answer } = await client.query<{ is_finished: boolean | null }>({
    ...recordGroupsStatement,
    values: [
      claim.notificationId,
      claim.seq,
      claim.fence,
      numberArray(rows.map((row) => row.firstPosition)),
      `{${rows.map((row) => row.positions).join()}}`,
      rows.map((row) => row.outcome),
      rows.map((row) => row.httpStatus),
      rows.map((row) => row.attempts),
      rows.map((row) => row.inDoubt),
      rows.map((row) => row.reason),
      rows.map((row) => row.providerMessageIds),
    ],
  });
  const { is_finished } = answer[0]!;
  if (is_finished === null) throw new FencedError(claim);
  return is_finished;
}

/** Whether the device at this position has its outcome already. */
export async function isRecorded(db: Kysely<Database>, claim: Claim, position: number): Promise<boolean> {
  const row = await db
    .selectFrom('batches')
    .select(sql<number>`get_bit(recorded, ${position})`.as('bit'))
    .where('notification_id', '=', claim.notificationId)
    .where('seq', '=', claim.seq)
    .executeTakeFirstOrThrow();
  return row.bit === 1;
}
