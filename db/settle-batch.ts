import { CompiledQuery, sql, type Transaction } from 'kysely';
import { emptyOutcomeCounts, type Outcome, type OutcomeCounts, outcomes } from '../domain/outcome.ts';
import { addToBatch, type Claim } from './batches.ts';
import { deleteDeferralsOfBatch } from './deferrals.ts';
import { FencedError } from './fenced-error.ts';
import type { Database } from './schema.ts';

/**
 * Records one outcome for every device of a claimed batch that has none, in one statement: after a cancellation or an expiry.
 * Devices that may have got the message already (in doubt) end as `unknown` instead.
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
  await deleteDeferralsOfBatch(trx, claim);
  return counts;
}
