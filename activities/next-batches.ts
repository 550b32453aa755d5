import { type BatchSummary, listOpenBatches } from '../db/batches.ts';
import { findPlan, planNextPage } from '../db/plan.ts';
import type { ActivityDeps } from './activities.ts';

export interface NextBatchesInput {
  notificationId: string;
  afterSeq: number;
}

export interface BatchPage {
  /** At most twice as many as may be open at once. */
  batches: BatchSummary[];
  /** Nothing is left to plan and nothing unfinished follows. */
  isLast: boolean;
  /** A small send, by `CARILLON_SMALL_AUDIENCE`: it overtakes campaigns on task queues of its own. */
  isUrgent: boolean;
}

/**
 * The next unfinished batches; plans further pages of the audience when too few are there: one, or as many as it takes to find
 * a device and to know whether the audience is a small one. When `maxPages` do not tell, there are no batches yet. Keyed by the
 * plan cursor: a repeat reads what the first call stored.
 */
export async function nextBatches(
  deps: ActivityDeps,
  input: NextBatchesInput,
  stop: AbortSignal,
  maxPages = Number.POSITIVE_INFINITY,
): Promise<BatchPage> {
  const { notificationId, afterSeq } = input;
  const limit = 2 * deps.config.openBatches;
  for (let pages = 0; ; pages++) {
    const { isPlanned, audienceSize } = await findPlan(deps.db, notificationId);
    const batches = await listOpenBatches(deps.db, notificationId, afterSeq, limit);
    const isSmall = audienceSize <= deps.config.smallAudience;
    const isEnough = batches.length === limit || (pages > 0 && batches.length > 0 && !isSmall);
    if (isPlanned || isEnough) {
      return { batches, isLast: isPlanned && batches.length < limit, isUrgent: isPlanned && isSmall };
    }
    if (pages === maxPages) return { batches: [], isLast: false, isUrgent: false };
    stop.throwIfAborted();
    await deps.db.transaction().execute((trx) => planNextPage(trx, notificationId, deps.config.batchSize));
  }
}
