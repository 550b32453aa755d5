/** Temporal's ids and names, made and taken apart only here. Workflows import this file, so it must stay free of Node. */

export const notificationWorkflowType = 'notificationWorkflow';

/** Wakes `notificationWorkflow` to read its state. The signal carries nothing: PostgreSQL is the authority. */
export const wakeSignalName = 'wakeSignal';

export function notificationWorkflowId(notificationId: string): string {
  return `notification-${notificationId}`;
}

export function batchWorkflowId(notificationId: string, seq: number): string {
  return `notification-${notificationId}/batch-${seq}`;
}
