/** What the worker registers. */
export { deliverBatchWorkflow } from './deliver-batch.ts';
export { sendNotificationWorkflow } from './send-notification.ts';
