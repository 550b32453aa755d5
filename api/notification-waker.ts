/**
 * All that the API knows of Temporal. PostgreSQL already has the new state when this is called; whatever happens here, the
 * change is made, and the reconciler in the worker wakes what could not be woken.
 */
export interface NotificationWaker {
  /** Never throws. `deferred`: Temporal could not be reached within the deadline. */
  wake(notificationId: string, about: NotificationSummary): Promise<'woken' | 'deferred'>;
  /** `reachable`, or in a few words why not. Never throws. */
  check(): Promise<string>;
}

/** What a person sees of a send in Temporal's Web UI. */
export interface NotificationSummary {
  appId: number;
  title: string | null;
  /** One line. */
  audience: string;
}
