/** What a device tells of a notification or message after it arrived. */
export interface NewEvent {
  appId: number;
  /** Of the notification or message, in lower case: what its payload carries as `nid`. */
  sendId: string;
  /** Its external id. */
  device: string;
  /** One of `usualEventTypes`, or a word of the app's own. */
  type: string;
  /** When it happened, as the device says: Unix milliseconds, not in the future. */
  at: number;
}

export const usualEventTypes = ['received', 'opened', 'dismissed'] as const;

export const eventTypePattern = /^[a-z][a-z0-9_.]{0,39}$/;

/** Of each app, besides the usual ones; `record_events` holds it. */
export const maxOwnEventTypes = 20;
