import type { Message } from '../../domain/message.ts';

/** What one notification says, and the ids that stay the same on every attempt. */
export interface NotificationContent {
  /** UUID v7. Also sent to the app as the data key `nid`, so that an app can drop a repeat. */
  notificationId: string;
  message: Message;
  /** After this instant the message must not be shown; undefined: the provider's own default. */
  expiresAt?: Date;
}
