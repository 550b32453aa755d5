import { type BatchSummary, findPlan, listOpenBatches, planNextPage } from '../db/batches.ts';
import type { ActivityDeps } from './activities.ts';

/** Audiences up to this size overtake campaigns on task queues of their own. */
const urgentAudience = 1_000;

export interface NextBatchesInput {
  notificationId: string;
  afterSeq: number;
  limit: number;
}

export interface BatchPage {
  batches: BatchSummary[];
  /** Nothing is left to plan and nothing unfinished follows. */
  isLast: boolean;
  isUrgent: boolean;
}

/**
 * The next unfinished batches; plans a page of the audience when fewer than `limit` are there. Keyed by the plan cursor: a
 * repeat reads what the first call stored.
 */
export async function nextBatches(deps: ActivityDeps, input: NextBatchesInput): Promise<BatchPage> {
  for (;;) {
    const before = await findPlan(deps.db, input.notificationId);
    let batches = await listOpenBatches(deps.db, input.notificationId, input.afterSeq, input.limit);
    if (batches.length < input.limit && !before.isPlanned) {
      await deps.db.transaction().execute((trx) => planNextPage(trx, input.notificationId, deps.config.batchSize));
      batches = await listOpenBatches(deps.db, input.notificationId, input.afterSeq, input.limit);
    }
    const now = await findPlan(deps.db, input.notificationId);
    // A page without a single matching device says nothing about the next.
    if (batches.length === 0 && !now.isPlanned) continue;
    return {
      batches,
      isLast: now.isPlanned && batches.length < input.limit,
      isUrgent: now.isPlanned && now.audienceSize <= urgentAudience,
    };
  }
}
