/** What the worker registers. */
export { deleteAppWorkflow } from './delete-app.ts';
export { deliverBatchWorkflow } from './deliver-batch.ts';
export { exportBooksWorkflow } from './export-books.ts';
export { laneWorkflow } from './lane.ts';
export { notificationWorkflow, sendNotificationWorkflow } from './send-notification.ts';
export { webhookWorkflow } from './webhook.ts';
