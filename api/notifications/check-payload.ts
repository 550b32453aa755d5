import type { App } from '../../domain/app.ts';
import type { Audience } from '../../domain/audience.ts';
import type { Message } from '../../domain/message.ts';
import { checkTopic } from '../../providers/apns/topic.ts';
import { PayloadError } from '../../providers/payload/payload-error.ts';
import { invalidField } from '../http/api-error.ts';
import { checkForAudience } from './message-schema.ts';

/**
 * Refuses a message that a provider of its audience would not take, or that is not for this app.
 * @throws {ApiError} 422 payload_invalid
 */
export function checkPayload(
  message: Message,
  audience: Audience,
  { apnsTopic, apnsTopics }: Pick<App, 'apnsTopic' | 'apnsTopics'>,
): void {
  try {
    checkForAudience(message, audience);
    if (apnsTopic !== undefined) checkTopic(message, [apnsTopic, ...apnsTopics]);
  } catch (error) {
    if (!(error instanceof PayloadError)) throw error;
    const field = error.field === 'message' ? 'message' : `message.${error.field}`;
    throw invalidField(field, error.message, 'payload_invalid');
  }
}
