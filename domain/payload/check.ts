import type { ProviderName } from '../device.ts';
import type { Message } from '../message.ts';
import { buildApnsContent } from './apns.ts';
import { buildFcmContent } from './fcm.ts';

/** As long as every real one, so that sizes are right before the notification has its id. */
const placeholderId = '00000000-0000-7000-8000-000000000000';

/**
 * Everything that can be known of a message before it is sent: size in bytes, reserved keys, contradictory fields.
 * The providers run the same code when they build it.
 * @throws {PayloadError} naming the field.
 */
export function checkMessage(message: Message, provider: ProviderName): void {
  measureMessage(message, provider);
}

/**
 * Bytes that count against the provider's limit.
 * @throws {PayloadError} as `checkMessage`.
 */
export function measureMessage(message: Message, provider: ProviderName): number {
  const content = { notificationId: placeholderId, message };
  return provider === 'apns'
    ? buildApnsContent(content).payloadBytes
    : buildFcmContent(content, new Date(0)).payloadBytes;
}
