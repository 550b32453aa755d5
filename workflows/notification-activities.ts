import { ActivityCancellationType, proxyActivities, proxyLocalActivities } from '@temporalio/workflow';
import type { Activities } from '../activities/activities.ts';

const options = {
  startToCloseTimeout: '10m',
  heartbeatTimeout: '30s',
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '10s' },
} as const;
const summarised = (summary: string) => proxyActivities<Activities>({ ...options, summary });

/**
 * Within the workflow task, which costs a quarter of an activity. Not tried again: what fails goes on as an activity, which waits
 * for its next attempt without holding a workflow task.
 */
export const { lookAndSend } = proxyLocalActivities<Activities>({
  startToCloseTimeout: '2m',
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { maximumAttempts: 1 },
});

/** The activities on the queue of the notifications, each with its line in Temporal's UI. */
export const { firstLook } = summarised('read state and books, list the first batches');
export const { readNotification } = summarised('read state and books');
export const { beginScheduled } = summarised('the time has come: begin');
export const { nextBatches } = summarised('plan and list the next batches');
export const { closeBooks } = summarised('count the rows, close the books');
export const { settleCancelled } = summarised('record who was not sent to, close the books');
export const { deleteAppStep } = summarised('delete what is left of the app');
export const { cancelByOperator } = summarised('cancelled in Temporal: store it');
