import type { Platform, ProviderName } from '../../domain/device.ts';
import type { Message } from '../../domain/message.ts';
import { providers } from '../registry.ts';

/** As long as every real id, so that sizes are right before the notification has one. */
const placeholderId = '00000000-0000-7000-8000-000000000000';

/** `ProviderDescription.measure` before there is a notification. @throws {PayloadError} naming the field. */
export function measureMessage(message: Message, provider: ProviderName, reached?: readonly Platform[]): number {
  const description = providers[provider];
  return description.measure({ notificationId: placeholderId, message }, reached ?? description.platforms);
}
