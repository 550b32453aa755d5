import { heartbeat } from '@temporalio/activity';
import { claimBatch, findPlan, listOpenBatches, planNextPage } from '../db/batches.ts';
import { settleBatch } from '../db/deliveries.ts';
import type { ActivityDeps } from './activities.ts';
import { closeBooks } from './close-books.ts';

/**
 * After a cancellation: plans what is left of the audience, records `cancelled` for everybody without an outcome (`unknown`
 * for who may have got the message), and closes the books. Keyed by the rows: a repeat goes on with the batches still open.
 */
export async function settleCancelled(deps: ActivityDeps, notificationId: string): Promise<void> {
  while (!(await findPlan(deps.db, notificationId)).isPlanned) {
    await deps.db.transaction().execute((trx) => planNextPage(trx, notificationId, deps.config.batchSize));
    heartbeat();
  }
  for (;;) {
    const [batch] = await listOpenBatches(deps.db, notificationId, 0, 1);
    if (batch === undefined) break;
    await deps.db.transaction().execute(async (trx) => {
      const claim = await claimBatch(trx, notificationId, batch.seq);
      if (claim) await settleBatch(trx, claim, 'cancelled');
    });
    heartbeat();
  }
  await closeBooks(deps, notificationId);
}
