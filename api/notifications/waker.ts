import type { App } from '../../domain/app.ts';
import type { Notification } from '../../domain/notification.ts';

/**
 * All that the API knows of Temporal. PostgreSQL already has the new state when this is called; whatever happens here, the
 * change is made, and the reconciler in the worker wakes what could not be woken.
 */
export interface NotificationWaker {
  /** Never throws. `deferred`: Temporal could not be reached within the deadline. */
  wake(notification: Pick<Notification, 'id' | 'appId' | 'title' | 'audience'>): Promise<'woken' | 'deferred'>;
  /** The same for an app that is to be deleted. */
  deleteApp(app: Pick<App, 'id' | 'name'>): Promise<'woken' | 'deferred'>;
  /** `reachable`, or in a few words why not. Never throws. */
  check(): Promise<string>;
}
