/** What the worker registers. */
export { deliverBatchWorkflow } from './deliver-batch.ts';
export { laneWorkflow } from './lane.ts';
export { notificationWorkflow, sendNotificationWorkflow } from './send-notification.ts';
