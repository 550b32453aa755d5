import { z } from '@hono/zod-openapi';
import type { Delivery } from '../../db/deliveries.ts';
import type { HistoryLine } from '../../db/device-history.ts';
import { toDeliveryLine } from '../../domain/delivery-line.ts';
import { outcomes } from '../../domain/outcome.ts';
import { answeredInstant } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';

const shape = {
  external_id: z.string().nullable().openapi({ description: 'Null when the device was deleted since.' }),
  outcome: z.enum(outcomes),
  reason: z.string().nullable().openapi({ description: "The provider's word, or ours." }),
  http_status: z.int().nullable(),
  provider_message_id: z.string().nullable(),
  attempts: z.int(),
  in_doubt: z.boolean().openapi({ description: 'The provider may have got it more than once.' }),
  finished_at: answeredInstant,
};

export const deliverySchema = z.object({ notification_id: z.uuid(), ...shape }).openapi('Delivery');

export const deliveryPageSchema = z
  .object({ deliveries: z.array(deliverySchema), next_cursor: nextCursor })
  .openapi('DeliveryPage');

const historyLineSchema = z
  .object({
    notification_id: z.uuid().nullable().openapi({ description: 'Null: it was a message.' }),
    message_id: z.uuid().nullable().openapi({ description: 'Null: it was a notification.' }),
    ...shape,
  })
  .openapi('HistoryLine');

export const historyPageSchema = z
  .object({ deliveries: z.array(historyLineSchema), next_cursor: nextCursor })
  .openapi('HistoryPage');

export function fromDelivery(delivery: Delivery): z.infer<typeof deliverySchema> {
  return { notification_id: delivery.notificationId, ...toDeliveryLine(delivery) };
}

export function fromHistoryLine(line: HistoryLine): z.infer<typeof historyLineSchema> {
  return { notification_id: line.notificationId, message_id: line.messageId, ...toDeliveryLine(line) };
}
