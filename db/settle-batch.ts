import type { Transaction } from 'kysely';
import type { Claim } from './batches.ts';
import { deleteDeferralsOfBatch } from './deferrals.ts';
import { addToGroups, type DeliveryGroup, type Ended } from './delivery-groups.ts';
import { FencedError } from './fenced-error.ts';
import type { StatementClient } from './prepared-statement.ts';
import { recordDeliveries } from './record-deliveries.ts';
import type { Database } from './schema.ts';

/**
 * Records one outcome for every device of a claimed batch that has none: after a cancellation or an expiry. Devices that may have got the
 * message already (in doubt) end as `unknown` instead. `client` is the transaction's.
 * @returns what was recorded
 * @throws {FencedError}
 */
export async function settleBatch(
  trx: Transaction<Database>,
  client: StatementClient,
  claim: Claim,
  outcome: 'cancelled' | 'expired',
): Promise<DeliveryGroup[]> {
  const batch = await trx
    .selectFrom('batches')
    .select(['horizon', 'recorded'])
    .where('notification_id', '=', claim.notificationId)
    .where('seq', '=', claim.seq)
    .where('fence', '=', claim.fence)
    .where('finished_at', 'is', null)
    .forUpdate()
    .executeTakeFirst();
  if (batch === undefined) throw new FencedError(claim);
  const deferrals = await trx
    .selectFrom('deferrals')
    .select(['device_id', 'http_status', 'attempts', 'doubts', 'dispatched', 'reason'])
    .where('notification_id', '=', claim.notificationId)
    .where('batch_seq', '=', claim.seq)
    .execute();
  const deferralOf = new Map(deferrals.map((deferral) => [deferral.device_id, deferral]));
  const groups: DeliveryGroup[] = [];
  claim.deviceIds.forEach((deviceId, position) => {
    if (batch.recorded[position] === '1') return;
    const deferral = deferralOf.get(deviceId);
    // Reserved and not answered: an attempt that no deferral has counted yet.
    const isReserved = deferral?.dispatched ?? position < batch.horizon;
    const inDoubt = isReserved || (deferral?.doubts ?? 0) > 0;
    const ended = {
      outcome: inDoubt ? 'unknown' : outcome,
      reason: deferral?.reason ?? null,
      httpStatus: deferral?.http_status ?? null,
      attempts: (deferral?.attempts ?? 0) + (isReserved ? 1 : 0),
      inDoubt,
    } satisfies Ended;
    addToGroups(groups, ended, position);
  });
  await recordDeliveries(client, claim, groups);
  await deleteDeferralsOfBatch(trx, claim);
  return groups;
}
