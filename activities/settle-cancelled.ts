import { claimBatch, findPlan, listOpenBatches, planNextPage } from '../db/batches.ts';
import { settleBatch } from '../db/deliveries.ts';
import { getSummary } from '../db/notifications.ts';
import type { ActivityDeps } from './activities.ts';
import { closeBooks } from './close-books.ts';

/**
 * After a cancellation: plans what is left of the audience, records `cancelled` for everybody without an outcome (`unknown`
 * for who may have got the message), and closes the books. One that was cancelled before its launch has no audience and is
 * closed already. Keyed by the rows: one that was stopped between two steps goes on, when repeated, with what is still open.
 */
export async function settleCancelled(deps: ActivityDeps, notificationId: string, stop: AbortSignal): Promise<void> {
  const { finishedAt } = await getSummary(deps.db, notificationId);
  if (finishedAt !== null) return;
  while (!(await findPlan(deps.db, notificationId)).isPlanned) {
    await deps.db.transaction().execute((trx) => planNextPage(trx, notificationId, deps.config.batchSize));
    stop.throwIfAborted();
  }
  for (;;) {
    const [batch] = await listOpenBatches(deps.db, notificationId, 0, 1);
    if (batch === undefined) break;
    await deps.db.transaction().execute(async (trx) => {
      const claim = await claimBatch(trx, notificationId, batch.seq);
      if (claim) await settleBatch(trx, claim, 'cancelled');
    });
    stop.throwIfAborted();
  }
  await closeBooks(deps, notificationId);
}
