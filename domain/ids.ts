/**
 * Temporal's ids and names. Made and taken apart here and nowhere else. This file is imported by workflows, so it must stay free of Node.
 */

export const sendNotificationWorkflowType = 'sendNotificationWorkflow';

/** Wakes `sendNotificationWorkflow` to read its state from PostgreSQL. It carries nothing: PostgreSQL is the authority. */
export const wakeSignalName = 'wakeSignal';

export function notificationWorkflowId(notificationId: string): string {
  return `notification-${notificationId}`;
}

export function batchWorkflowId(notificationId: string, seq: number): string {
  return `notification-${notificationId}/batch-${seq}`;
}
