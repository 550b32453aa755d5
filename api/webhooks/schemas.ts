import { z } from '@hono/zod-openapi';
import type { WebhookDelivery } from '../../db/webhook-deliveries.ts';
import { maxPendingCount, type Webhook } from '../../db/webhooks.ts';
import { notificationStates } from '../../domain/notification-state.ts';
import { outcomes } from '../../domain/outcome.ts';
import { webhookDeliveryStates, webhookStates, webhookTypes } from '../../domain/webhook.ts';
import { notFound } from '../http/api-error.ts';
import { answeredInstant, answeredInstantOrNull, instant } from '../http/instant.ts';
import { nextCursor, uuidCursor } from '../http/paging.ts';
import { isUuid } from '../http/uuid.ts';

export const defaultOverlapSeconds = 86_400;
const maxOverlapSeconds = 30 * 86_400;

const id = z.string().openapi({ format: 'uuid', example: '019c0000-0000-7000-8000-000000000000' });
export const webhookParams = z.object({ id });
export const webhookDeliveryParams = z.object({ id, event: id });

/** An id that is no UUID cannot exist. */
export function checkedId(id: string, what: 'webhook' | 'delivery'): string {
  if (!isUuid(id)) throw notFound(what);
  return id;
}

const filterSchema = z
  .strictObject({
    outcomes: z.array(z.enum(outcomes)).min(1).max(outcomes.length).optional().openapi({
      description: 'Of messages.finished: these alone.',
    }),
    reasons: z
      .array(z.string().min(1).max(200))
      .min(1)
      .max(100)
      .optional()
      .openapi({
        description: 'Of messages.finished: those with these reasons alone.',
        example: ['Unregistered'],
      }),
    states: z.array(z.enum(notificationStates)).min(1).max(notificationStates.length).optional().openapi({
      description: 'Of notification.state_changed: moves into these states alone.',
    }),
  })
  .openapi('WebhookFilter', { description: 'What is left out lets all pass.' });

const url = z.string().max(2_000).openapi({
  format: 'uri',
  description: 'Requests go there by POST. https, to a public address.',
  example: 'https://shop.example/hook',
});
const types = z.array(z.enum(webhookTypes)).min(1).max(webhookTypes.length);

export const newWebhookSchema = z
  .strictObject({ url, types, filter: filterSchema.optional() })
  .openapi('NewWebhook', { example: { url: 'https://shop.example/hook', types: ['notification.finished'] } });

export const webhookChangeSchema = z
  .strictObject({
    url: url.optional(),
    types: types.optional(),
    filter: filterSchema.nullable().optional().openapi({ description: 'Replaces the former; null: none.' }),
    state: z.enum(webhookStates).optional().openapi({
      description:
        'enabled: what waits is tried at once. disabled: what waits stays, what happens meanwhile is not told.',
    }),
  })
  .openapi('WebhookChange', { minProperties: 1, example: { state: 'enabled' } });

export const webhookSchema = z
  .object({
    id: z.uuid(),
    url: z.string(),
    types: z.array(z.enum(webhookTypes)),
    filter: filterSchema,
    state: z.enum(webhookStates),
    disabled_at: answeredInstantOrNull,
    disabled_reason: z.enum(['by_caller', 'gone', 'failing']).nullable().openapi({
      description: 'gone: it answered 410. failing: nothing was delivered for five days.',
    }),
    failing_since: answeredInstantOrNull.openapi({ description: 'The first failure since it last took anything.' }),
    last_error: z.string().nullable().openapi({ description: 'Of the latest failure.' }),
    last_delivered_at: answeredInstantOrNull,
    pending: z.int().openapi({ description: `What waits for it, ${maxPendingCount} at most.` }),
    previous_secret_until: answeredInstantOrNull.openapi({
      description: 'Until then the secret before this one signs too.',
    }),
    created_at: answeredInstant,
    updated_at: answeredInstant,
  })
  .openapi('Webhook', { description: 'Without its secret, which is told once.' });

const secret = z.string().openapi({
  description: 'For the libraries of standardwebhooks.com; here and nowhere else.',
  example: 'whsec_…',
});

export const madeWebhookSchema = z.object({ ...webhookSchema.shape, secret }).openapi('MadeWebhook');

export const webhookPageSchema = z
  .object({ webhooks: z.array(webhookSchema), next_cursor: nextCursor })
  .openapi('WebhookPage');

export const secretRotationSchema = z
  .strictObject({
    overlap_seconds: z.int().min(0).max(maxOverlapSeconds).default(defaultOverlapSeconds).openapi({
      description: 'How long the secret before it signs too.',
    }),
  })
  .openapi('WebhookSecretRotation', { example: { overlap_seconds: 3_600 } });

export const webhookDeliverySchema = z
  .object({
    event_id: z.uuid().openapi({ description: 'The `webhook-id` of its requests.' }),
    type: z.string(),
    subject: z.string().nullable().openapi({ description: 'Events of one subject come in order; null: in any.' }),
    at: answeredInstant.openapi({ description: 'When it happened.' }),
    state: z.enum(webhookDeliveryStates),
    attempts: z.int(),
    next_at: answeredInstantOrNull.openapi({ description: 'Not before; of one that is pending.' }),
    last_attempt_at: answeredInstantOrNull,
    last_status: z.int().nullable().openapi({ description: 'HTTP; null: there was no answer.' }),
    last_error: z.string().nullable(),
    delivered_at: answeredInstantOrNull,
  })
  .openapi('WebhookDelivery');

export const webhookDeliveryPageSchema = z
  .object({ deliveries: z.array(webhookDeliverySchema), next_cursor: nextCursor })
  .openapi('WebhookDeliveryPage');

export const replaySchema = z
  .strictObject({
    since: instant.openapi({ description: 'Events from then on.' }),
    until: instant.optional().openapi({ description: 'Not included.' }),
    state: z.enum(webhookDeliveryStates).default('failed'),
    cursor: uuidCursor.openapi({ description: '`next_cursor` of the answer before.' }),
  })
  .openapi('WebhookReplay', { example: { since: '2026-12-24T00:00:00Z', state: 'failed' } });

export const replayedSchema = z
  .object({
    replayed: z.int(),
    next_cursor: nextCursor.openapi({ description: 'There may be more: ask again with it. null: there are none.' }),
  })
  .openapi('WebhookReplayed');

const isoOrNull = (date: Date | null | undefined) => date?.toISOString() ?? null;

export function fromWebhook(webhook: Webhook): z.infer<typeof webhookSchema> {
  return {
    id: webhook.id,
    url: webhook.url,
    types: webhook.types as z.infer<typeof webhookSchema>['types'],
    filter: webhook.filter,
    state: webhook.disabledAt === undefined ? 'enabled' : 'disabled',
    disabled_at: isoOrNull(webhook.disabledAt),
    disabled_reason: webhook.disabledReason ?? null,
    failing_since: isoOrNull(webhook.failingSince),
    last_error: webhook.lastError ?? null,
    last_delivered_at: isoOrNull(webhook.lastDeliveredAt),
    pending: webhook.pending,
    previous_secret_until: isoOrNull(webhook.previousSecretUntil),
    created_at: webhook.createdAt.toISOString(),
    updated_at: webhook.updatedAt.toISOString(),
  };
}

export function fromDelivery(delivery: WebhookDelivery): z.infer<typeof webhookDeliverySchema> {
  return {
    event_id: delivery.eventId,
    type: delivery.type,
    subject: delivery.subject,
    at: delivery.at.toISOString(),
    state: delivery.state,
    attempts: delivery.attempts,
    next_at: delivery.state === 'pending' ? delivery.nextAt.toISOString() : null,
    last_attempt_at: isoOrNull(delivery.lastAttemptAt),
    last_status: delivery.lastStatus,
    last_error: delivery.lastError,
    delivered_at: isoOrNull(delivery.deliveredAt),
  };
}
