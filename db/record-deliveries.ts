import { type Kysely, sql } from 'kysely';
import type { Claim } from './batches.ts';
import { type Deferral, deferralsAsJson } from './deferrals.ts';
import { type DeliveryGroup, positionRows } from './delivery-groups.ts';
import { type Retirement, retirementsAsJson } from './devices.ts';
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

const recordChunkStatement: PreparedStatement = {
  name: 'record_chunk',
  text: 'select record_chunk($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) as is_finished',
};

/** What else became of devices of the batch, stored with the outcomes. */
export interface AlongWithOutcomes {
  deferrals?: Deferral[];
  /** Ids of devices that were deferred and have their outcome now. */
  noLongerDeferred?: number[];
  retirements?: Retirement[];
}

/**
 * Records outcomes under the fence, and what comes along with them: all of it or nothing. The batch's counts and bitmap follow by a
 * trigger, which refuses a second outcome for a device; see `migrations/0011-chunk-in-one-statement.ts`.
 * @returns true when the last device of the batch has its outcome now
 * @throws {FencedError}
 */
export async function recordDeliveries(
  client: StatementClient,
  claim: Claim,
  groups: DeliveryGroup[],
  { deferrals = [], noLongerDeferred = [], retirements = [] }: AlongWithOutcomes = {},
): Promise<boolean> {
  const rows = groups.flatMap((group) => positionRows(group).map((row) => ({ ...group, ...row })));
  const { rows: answer } = await client.query<{ is_finished: boolean | null }>({
    ...recordChunkStatement,
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
      deferrals.length === 0 ? null : deferralsAsJson(deferrals),
      noLongerDeferred.length === 0 ? null : numberArray(noLongerDeferred),
      retirements.length === 0 ? null : retirementsAsJson(retirements),
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
