import { type ProviderName, providerNames } from './device.ts';

/**
 * Task queue names. A prefix keeps installations (and tests) that share a namespace apart. Workflows derive the delivery
 * queues from their own queue, so a notification stays within the installation that started it.
 */
export const workerRoles = ['notifications', ...providerNames, 'lanes'] as const;
export type WorkerRole = (typeof workerRoles)[number];

const notificationsQueue = 'notifications';

export function notificationsTaskQueue(prefix = ''): string {
  return prefix + notificationsQueue;
}

export function deliveryTaskQueue(prefix: string, provider: ProviderName, isUrgent: boolean): string {
  return `${prefix}${provider}${isUrgent ? '-urgent' : ''}`;
}

/** Lanes are held for long: they must not take the places of batches. */
export function laneTaskQueue(prefix: string, provider: ProviderName): string {
  return `${prefix}${provider}-lanes`;
}

/** Receivers may be slow: they must not take the places of steps of sends. */
export function webhookTaskQueue(prefix: string): string {
  return `${prefix}webhooks`;
}

/** Uploads may hang for long: they must not take the places of what sends. Workers without a bucket do not look at it. */
export function exportsTaskQueue(prefix: string): string {
  return `${prefix}exports`;
}

/** The prefix in the name of a notifications queue. */
export function taskQueuePrefix(notificationsTaskQueueName: string): string {
  return notificationsTaskQueueName.slice(0, -notificationsQueue.length);
}
