import { z } from '@hono/zod-openapi';
import type { Delivery } from '../../db/deliveries.ts';
import { outcomes } from '../../domain/outcome.ts';
import { answeredInstant } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';

export const deliverySchema = z
  .object({
    notification_id: z.uuid(),
    external_id: z.string().nullable().openapi({ description: 'Null when the device was deleted since.' }),
    outcome: z.enum(outcomes),
    reason: z.string().nullable().openapi({ description: "The provider's word, or ours." }),
    http_status: z.int().nullable(),
    provider_message_id: z.string().nullable(),
    attempts: z.int(),
    in_doubt: z.boolean().openapi({ description: 'The provider may have got it more than once.' }),
    finished_at: answeredInstant,
  })
  .openapi('Delivery');

export const deliveryPageSchema = z
  .object({ deliveries: z.array(deliverySchema), next_cursor: nextCursor })
  .openapi('DeliveryPage');

export function fromDelivery(delivery: Delivery): z.infer<typeof deliverySchema> {
  return {
    notification_id: delivery.notificationId,
    external_id: delivery.externalId,
    outcome: delivery.outcome,
    reason: delivery.reason,
    http_status: delivery.httpStatus,
    provider_message_id: delivery.providerMessageId,
    attempts: delivery.attempts,
    in_doubt: delivery.inDoubt,
    finished_at: delivery.finishedAt.toISOString(),
  };
}
