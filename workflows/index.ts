/** What the worker registers. */
export { deliverBatchWorkflow } from './deliver-batch.ts';
export { notificationWorkflow, sendNotificationWorkflow } from './send-notification.ts';
