import { claimBatch, listOpenBatches } from '../db/batches.ts';
import { transactionWithClient } from '../db/connect.ts';
import { isRefusedByDatabase } from '../db/database-error.ts';
import { ensureDeliveryPartition } from '../db/delivery-partitions.ts';
import { getSummaryOfAnyApp } from '../db/notifications.ts';
import { findPlan, planNextPage } from '../db/plan.ts';
import { settleBatch } from '../db/settle-batch.ts';
import { countRecorded } from '../telemetry/delivery-metrics.ts';
import type { ActivityDeps } from './activities.ts';
import { appNameOf } from './app-names.ts';
import { closeBooks } from './close-books.ts';

/**
 * After a cancellation: plans what is left of the audience, records `cancelled` for every device without an outcome (`unknown`
 * if it may have got the message), and closes the books. A notification that was cancelled before its launch has no audience and
 * is closed already. Keyed by what has an outcome: a call that was stopped between two steps is repeated with what is still open.
 */
export async function settleCancelled(deps: ActivityDeps, notificationId: string, stop: AbortSignal): Promise<void> {
  const { finishedAt, appId } = await getSummaryOfAnyApp(deps.db, notificationId);
  if (finishedAt !== null) return;
  const app = await appNameOf(deps.db, appId);
  while (!(await findPlan(deps.db, notificationId)).isPlanned) {
    await deps.db.transaction().execute((trx) => planNextPage(trx, notificationId, deps.config.batchSize));
    stop.throwIfAborted();
  }
  await ensureDeliveryPartition(deps.db, notificationId);
  const failures: unknown[] = [];
  for (let seq = 0; ; ) {
    const [batch] = await listOpenBatches(deps.db, notificationId, seq, 1);
    if (batch === undefined) break;
    seq = batch.seq;
    try {
      const groups = await transactionWithClient(deps.pool, async (trx, client) => {
        const claim = await claimBatch(trx, notificationId, seq);
        return claim ? settleBatch(trx, client, claim, 'cancelled') : [];
      });
      for (const group of groups) countRecorded({ app, provider: batch.provider }, group, group.positions.length);
    } catch (error) {
      // One batch that PostgreSQL refuses must not keep the others pending.
      if (!isRefusedByDatabase(error)) throw error;
      failures.push(error);
    }
    stop.throwIfAborted();
  }
  if (failures.length > 0) throw failures[0];
  await closeBooks(deps, notificationId);
}
