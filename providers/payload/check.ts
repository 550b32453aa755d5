import { type Platform, type ProviderName, platforms } from '../../domain/device.ts';
import type { Message } from '../../domain/message.ts';
import { buildApnsContent } from '../apns/payload.ts';
import { buildFcmContent } from '../fcm/payload.ts';
import type { NotificationContent } from './content.ts';

/** As long as every real one, so that sizes are right before the notification has its id. */
const placeholderId = '00000000-0000-7000-8000-000000000000';

/**
 * Everything that can be known of a message before it is sent: size in bytes, reserved keys, contradictory fields. Whatever the
 * provider would carry to one of `platforms`, overrides included. The providers run the same code when they build it.
 * @throws {PayloadError} naming the field.
 */
export function checkMessage(message: Message, provider: ProviderName, reached: Iterable<Platform> = platforms): void {
  measureMessage(message, provider, reached);
}

/**
 * Bytes that count against the provider's limit.
 * @throws {PayloadError} as `checkMessage`.
 */
export function measureMessage(
  message: Message,
  provider: ProviderName,
  reached: Iterable<Platform> = platforms,
): number {
  const content: NotificationContent = { notificationId: placeholderId, message };
  if (provider === 'apns') return buildApnsContent(content).payloadBytes;
  const { payloadBytes, faults } = buildFcmContent(content, new Date(0));
  for (const platform of reached) {
    const fault = faults.get(platform);
    if (fault !== undefined) throw fault;
  }
  return payloadBytes;
}
