import {
  ActivityCancellationType,
  CancellationScope,
  continueAsNew,
  isCancellation,
  proxyActivities,
  setCurrentDetails,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/activities.ts';
import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import { count, describeBatch, describeBooks, shorten } from './details.ts';

export interface DeliverBatchWorkflowInput extends DeliverBatchInput {
  /** The delivery queue of the provider. */
  taskQueue: string;
  heartbeatTimeoutMs: number;
}

/** What the batch looked like when this workflow ended; undefined: cancelled before the first call answered. */
export type DeliverBatchWorkflowResult = DeliverBatchResult | undefined;

/** No batch takes a day, however low its rate limit: a slow batch returns to wait. */
const startToCloseTimeout = '24h';
/** Waits up to this long are sat out here; for a longer one the place among the open batches is given to another. */
const longestWaitHereMs = 1_000;

/**
 * One batch: calls `deliverBatch` until every device has its outcome or the rest must wait for long, so that a device deferred
 * for 15 minutes holds neither a worker slot nor a place among the open batches. Its report says when to start it again. A
 * cancellation is answered by a report, not by a failure.
 */
export async function deliverBatchWorkflow(input: DeliverBatchWorkflowInput): Promise<DeliverBatchWorkflowResult> {
  const { taskQueue, heartbeatTimeoutMs, ...batch } = input;
  const activities = proxyActivities<Activities>({
    taskQueue,
    startToCloseTimeout,
    heartbeatTimeout: heartbeatTimeoutMs,
    // Otherwise the workflow would end while the activity still sends.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
  });
  const summary = describeBatch(batch);
  let result: DeliverBatchWorkflowResult;
  setCurrentDetails(
    `**${summary}**\n\nIs being sent, or waits for a worker of queue ${taskQueue}. Live counts: Pending Activities, heartbeat details.`,
  );
  try {
    for (;;) {
      result = await activities.deliverBatch.executeWithOptions({ summary }, [batch]);
      setCurrentDetails(
        describeBooks(result.books, `${summary}: ${headline(result)}`, ['These are the books of the whole send.']),
      );
      if (!mustWait(result) || result.waitMs > longestWaitHereMs) return result;
      if (CancellationScope.current().consideredCancelled) return result;
      if (result.waitMs > 0) await sleep(result.waitMs, { summary: shorten(waiting(result)) });
      if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof deliverBatchWorkflow>(input);
    }
  } catch (error) {
    if (isCancellation(error)) return result;
    throw error;
  }
}

/** Whether the batch is to be tried again after `waitMs`. */
function mustWait({ status }: DeliverBatchResult): boolean {
  return status === 'deferred' || status === 'waiting';
}

function headline(result: DeliverBatchResult): string {
  if (!mustWait(result)) return `${result.status}, ${result.reason}`;
  return `${waiting(result)}, until ${new Date(Date.now() + result.waitMs).toISOString()}`;
}

/** A rate limit holds up everybody, a refusal those who were refused. */
function waiting({ deferred, host, reason }: DeliverBatchResult): string {
  const cause = host === undefined ? reason : `${reason} at ${host}`;
  return deferred > 0 ? `${cause}; ${count(deferred)} devices wait for another attempt` : cause;
}
