import { z } from '@hono/zod-openapi';
import type { DirectMessage, MessageEntry } from '../../db/messages.ts';
import { providerNames } from '../../domain/device.ts';
import {
  maxDevicesOfMessage,
  type Recipients,
  type SkippedRecipient,
  unknownRecipientRules,
} from '../../domain/direct-message.ts';
import { inDoubtPolicies } from '../../domain/notification-state.ts';
import { outcomes } from '../../domain/outcome.ts';
import { notFound } from '../http/api-error.ts';
import { idempotencyKey } from '../http/idempotency.ts';
import { answeredInstant, answeredInstantOrNull } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';
import { isUuid } from '../http/uuid.ts';
import { fromMessage, messageSchema } from '../notifications/message-schema.ts';
import { inDoubtPolicy } from '../notifications/schemas.ts';

export const recipientId = z.string().min(1).max(255);
const recipientIds = z.array(recipientId).min(1).max(100);

const recipientsSchema = z
  .strictObject({
    external_id: recipientId.optional(),
    user_id: recipientId.optional().openapi({ description: 'All live devices of the user.' }),
    external_ids: recipientIds.optional(),
    user_ids: recipientIds.optional(),
  })
  .refine((to) => Object.values(to).filter((ids) => ids !== undefined).length === 1, {
    error: 'Give exactly one of external_id, user_id, external_ids, user_ids.',
  })
  .openapi('Recipients', {
    minProperties: 1,
    maxProperties: 1,
    description: `Exactly one of the four. At most ${maxDevicesOfMessage} devices in all.`,
    example: { user_id: 'user-17' },
  });

const example = {
  to: { user_id: 'user-17' },
  message: { title: 'Your parcel is here', deep_link: 'shop://orders/4711', ttl: 3_600 },
};

export const newMessageSchema = z
  .strictObject({
    to: recipientsSchema,
    message: messageSchema.openapi({ description: 'ttl counts from the moment at which the message is accepted.' }),
    in_doubt_policy: inDoubtPolicy.optional(),
    unknown_recipient: z.enum(unknownRecipientRules).default('skip').openapi({
      description:
        'error: refuse the message where an external id has no device, or a user none. A device that is known and cannot be sent to is skipped all the same.',
    }),
  })
  .openapi('NewMessage', { example });

export type NewMessageBody = z.infer<typeof newMessageSchema>;

// From the shape, as with the rows of an import.
export const messageLineSchema = z
  .strictObject({ ...newMessageSchema.shape, idempotency_key: idempotencyKey })
  .openapi('MessageLine', { example: { ...example, idempotency_key: 'order-4711-shipped' } });

const deliverySchema = z
  .object({
    external_id: z.string().nullable().openapi({ description: 'Null when the device was deleted since.' }),
    user_id: z.string().optional().openapi({ description: 'Of a user who has no device; external_id is null then.' }),
    provider: z.enum(providerNames).nullable().openapi({ description: 'Null for a recipient without a device.' }),
    outcome: z.enum(outcomes).nullable().openapi({ description: 'Null while it is pending.' }),
    reason: z.string().nullable().openapi({
      description:
        "The provider's word, or ours: unknown_recipient, device_gone for those without a device. While pending: why it waits.",
    }),
    http_status: z.int().nullable(),
    provider_message_id: z.string().nullable(),
    attempts: z.int(),
    in_doubt: z.boolean().openapi({ description: 'The provider may have got it more than once.' }),
    not_before: answeredInstantOrNull.openapi({ description: 'When the next attempt is, after one that failed.' }),
    finished_at: answeredInstantOrNull,
  })
  .openapi('MessageDelivery');

const messageShape = {
  id: z.uuid(),
  to: recipientsSchema,
  in_doubt_policy: z.enum(inDoubtPolicies),
  expires_at: answeredInstantOrNull.openapi({ description: 'What was not sent by then ends as expired.' }),
  created_at: answeredInstant,
  deliveries: z.array(deliverySchema).openapi({ description: 'One for each device, then the recipients without one.' }),
};

export const acceptedMessageSchema = z.object(messageShape).openapi('AcceptedMessage');

const storedShape = { ...messageShape, message: messageSchema };

export const directMessageSchema = z.object(storedShape).openapi('DirectMessage');

export const cancelledMessageSchema = z
  .object({ ...storedShape, cancelled: z.int().openapi({ description: 'Devices that this request ended.' }) })
  .openapi('CancelledMessage');

export const messagePageSchema = z
  .object({ messages: z.array(directMessageSchema), next_cursor: nextCursor })
  .openapi('MessagePage');

export const messageParams = z.object({
  id: z.string().openapi({ format: 'uuid', example: '019c0000-0000-7000-8000-000000000000' }),
});

/** An id that is no UUID cannot exist. */
export function checkedMessageId(id: string): string {
  if (!isUuid(id)) throw notFound('message');
  return id;
}

/** Wire names beside the names in the domain. */
const renamed = [
  ['external_id', 'externalId'],
  ['user_id', 'userId'],
  ['external_ids', 'externalIds'],
  ['user_ids', 'userIds'],
] as const;

type RecipientsBody = z.infer<typeof recipientsSchema>;

export function toRecipients(body: RecipientsBody): Recipients {
  return Object.fromEntries(renamed.flatMap(([wire, name]) => (body[wire] === undefined ? [] : [[name, body[wire]]])));
}

function fromRecipients(to: Recipients): RecipientsBody {
  return Object.fromEntries(renamed.flatMap(([wire, name]) => (to[name] === undefined ? [] : [[wire, to[name]]])));
}

export function fromDirectMessage(message: DirectMessage): z.infer<typeof directMessageSchema> {
  return { ...fromAcceptedMessage(message), message: fromMessage(message.message) };
}

export function fromAcceptedMessage(message: Omit<DirectMessage, 'message'>): z.infer<typeof acceptedMessageSchema> {
  const createdAt = message.createdAt.toISOString();
  return {
    id: message.id,
    to: fromRecipients(message.to),
    in_doubt_policy: message.inDoubtPolicy,
    expires_at: message.expiresAt?.toISOString() ?? null,
    created_at: createdAt,
    deliveries: [
      ...message.entries.map(fromEntry),
      ...message.skipped.map((recipient) => ({
        ...fromSkipped(recipient),
        ...{ provider: null, outcome: 'skipped' as const, http_status: null, provider_message_id: null, attempts: 0 },
        ...{ in_doubt: false, not_before: null, finished_at: createdAt },
      })),
    ],
  };
}

function fromEntry(entry: MessageEntry): z.infer<typeof deliverySchema> {
  return {
    external_id: entry.externalId,
    provider: entry.provider,
    outcome: entry.outcome,
    reason: entry.reason,
    http_status: entry.httpStatus,
    provider_message_id: entry.providerMessageId,
    attempts: entry.attempts,
    in_doubt: entry.inDoubt,
    not_before: entry.notBefore?.toISOString() ?? null,
    finished_at: entry.finishedAt?.toISOString() ?? null,
  };
}

export function fromSkipped({ externalId, userId, reason }: SkippedRecipient) {
  return { external_id: externalId ?? null, ...(userId !== undefined && { user_id: userId }), reason };
}
