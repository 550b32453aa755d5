import type { Message } from '../../domain/message.ts';

/** One notification's message, and the ids that stay the same on every attempt. */
export interface NotificationContent {
  /** UUID v7. The app also gets it as the data key `nid`, to drop a repeat. */
  notificationId: string;
  message: Message;
  /** After this instant the message must not be shown; undefined: the provider's own default. */
  expiresAt?: Date;
}
