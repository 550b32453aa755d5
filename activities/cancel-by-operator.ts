import { cancelNotification } from '../db/notification-moves.ts';
import { getSummaryOfAnyApp } from '../db/notifications.ts';
import type { ActivityDeps } from './activities.ts';

/** A cancellation asked for in Temporal's UI, stored as the API would. A repeat, or a notification that has ended: no change. */
export async function cancelByOperator(deps: ActivityDeps, notificationId: string): Promise<void> {
  const { appId } = await getSummaryOfAnyApp(deps.db, notificationId);
  const move = await cancelNotification(deps.db, appId, notificationId);
  deps.log.info({ notificationId, state: move?.notification.state }, 'cancelled from Temporal');
}
