import type { Move } from '../../db/notification-moves.ts';
import type { Notification } from '../../domain/notification.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { stateConflict } from './state-conflict.ts';

/** The notification after a move, its workflow woken. @throws {ApiError} 404, or 409 with the state that forbids `verb`. */
export async function wakeAfter(
  { waker }: ApiDependencies,
  verb: string,
  move: Move | undefined,
): Promise<Notification> {
  if (!move) throw notFound('notification');
  const { notification } = move;
  if (!move.ok) throw stateConflict(verb, notification);
  // A draft has no workflow.
  if (notification.launchedAt || notification.scheduledAt) await waker.wake(notification);
  return notification;
}
