import { z } from '@hono/zod-openapi';
import { eventTypePattern, maxOwnEventTypes, type NewEvent, usualEventTypes } from '../../domain/event.ts';
import { externalId } from '../devices/schemas.ts';
import { type ApiError, invalidField } from '../http/api-error.ts';
import { count } from '../http/counts.ts';
import { instant } from '../http/instant.ts';
import { isUuid } from '../http/uuid.ts';

const example = {
  type: 'opened',
  nid: '019c0000-0000-7000-8000-000000000000',
  device: 'phone-4711',
  at: '2026-12-24T18:00:00Z',
};

export const eventSchema = z
  .strictObject({
    type: z
      .string()
      .regex(eventTypePattern, 'Must be lower-case letters, digits, dots and underscores, 40 at most.')
      .openapi({
        description: `${usualEventTypes.join(', ')}, or a word of the app's own, of which it may have ${maxOwnEventTypes}.`,
      }),
    nid: z
      .string()
      .refine(isUuid, 'Must be a UUID.')
      .openapi({ format: 'uuid', description: 'Of the notification or message, as its payload carries it.' }),
    device: externalId,
    at: instant.optional().openapi({
      description:
        'When it happened; default: now. What lies in the future counts as now, what lies before the send as its beginning: the clocks of phones are wrong.',
    }),
  })
  .openapi('Event', { example });

export type EventBody = z.infer<typeof eventSchema>;

export const maxEventsOfBody = 1_000;

export const eventsBodySchema = z.union([
  eventSchema,
  z.strictObject({ events: z.array(eventSchema).min(1).max(maxEventsOfBody) }).openapi('Events', {
    example: { events: [example] },
  }),
]);

export function toNewEvent(appId: number, { type, nid, device, at }: EventBody, now: number): NewEvent {
  const said = at === undefined ? now : Date.parse(at);
  return { appId, sendId: nid.toLowerCase(), device, type, at: Math.min(Math.max(said, 0), now) };
}

const whoIsTold = 'Told to keys that may read notifications or messages.';

/** `accepted + repeated + unknown = taken` */
export const eventCountsShape = {
  taken: count.openapi({ description: 'Events without a fault, whatever they are of.' }),
  accepted: count.optional().openapi({ description: `Of them, what a device told for the first time. ${whoIsTold}` }),
  repeated: count.optional().openapi({ description: `What it had told before. ${whoIsTold}` }),
  unknown: count.optional().openapi({
    description: `What is of no send of the app, or of a device that was not in it: nothing is counted. ${whoIsTold}`,
  }),
};

export function typeRefused(field: string): ApiError {
  return invalidField(field, `The app has ${maxOwnEventTypes} types of its own, as many as it may have.`);
}
