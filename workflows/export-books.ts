import { ActivityCancellationType, proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { Activities } from '../activities/activities.ts';
import type { ExportBooksInput, ExportBooksResult } from '../domain/book-export.ts';
import { exportsTaskQueue, taskQueuePrefix } from '../domain/task-queues.ts';

/** Uploads the books of a send that has ended; tried again for a week, less and less often. Then housekeeping starts it anew. */
export async function exportBooksWorkflow(input: ExportBooksInput): Promise<ExportBooksResult> {
  const { exportBooks } = proxyActivities<Activities>({
    taskQueue: exportsTaskQueue(taskQueuePrefix(workflowInfo().taskQueue)),
    scheduleToCloseTimeout: '7d',
    startToCloseTimeout: '12h',
    heartbeatTimeout: '30s',
    retry: { initialInterval: '5s', backoffCoefficient: 2, maximumInterval: '1h' },
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    summary: 'upload deliveries, then the summary',
  });
  return exportBooks(input);
}
