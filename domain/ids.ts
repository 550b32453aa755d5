/** Temporal's ids and names, made and taken apart only here. Workflows import this file, so it must stay free of Node. */

export const notificationWorkflowType = 'notificationWorkflow';

/** Wakes `notificationWorkflow` to read its state. The signal carries nothing: PostgreSQL is the authority. */
export const wakeSignalName = 'wakeSignal';

export function notificationWorkflowId(notificationId: string): string {
  return `notification-${notificationId}`;
}

export const laneWorkflowType = 'laneWorkflow';

/** Two installations in one namespace may both have such a lane: their prefix tells them apart. */
export function laneWorkflowId(
  taskQueuePrefix: string,
  { appId, provider, number }: { appId: number; provider: string; number: number },
): string {
  return `${taskQueuePrefix}lane-${appId}-${provider}-${number}`;
}

export function batchWorkflowId(notificationId: string, seq: number): string {
  return `notification-${notificationId}/batch-${seq}`;
}

export const exportBooksWorkflowType = 'exportBooksWorkflow';

export function exportBooksWorkflowId(notificationId: string): string {
  return `export-${notificationId}`;
}

export const deleteAppWorkflowType = 'deleteAppWorkflow';

export function deleteAppWorkflowId(taskQueuePrefix: string, appId: number): string {
  return `${taskQueuePrefix}app-deletion-${appId}`;
}

export const webhookWorkflowType = 'webhookWorkflow';

export function webhookWorkflowId(webhookId: string): string {
  return `webhook-${webhookId}`;
}
