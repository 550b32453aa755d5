import { z } from '@hono/zod-openapi';
import type { HaltedLane } from '../../db/halted-lanes.ts';
import type { LaneState } from '../../db/message-counts.ts';
import { providerNames } from '../../domain/device.ts';
import { count } from '../http/counts.ts';
import { answeredInstant } from '../http/instant.ts';

const halt = {
  reason: z.string(),
  detail: z.string().openapi({ description: 'A sentence for people.' }),
  since: answeredInstant,
};

/** Without a secret: `/readyz` shows it to everyone. */
export const haltedLaneSchema = z
  .object({ app: z.string(), provider: z.enum(providerNames), number: count, ...halt })
  .openapi('HaltedLane');

export function fromHaltedLane({ since, ...lane }: HaltedLane): z.infer<typeof haltedLaneSchema> {
  return { ...lane, since: since.toISOString() };
}

export const laneSchema = z
  .object({
    provider: z.enum(providerNames),
    number: count,
    waiting: count.openapi({ description: 'Devices without an outcome.' }),
    halt: z.object(halt).nullable().openapi({
      description: 'Why it stopped itself; it tries again now and then, and at once after POST /v1/messages/resume.',
    }),
  })
  .openapi('Lane', { description: 'What sends the messages to some of the devices of a provider, in order.' });

export function fromLane({ halt, ...lane }: LaneState): z.infer<typeof laneSchema> {
  return { ...lane, halt: halt && { ...halt, since: halt.since.toISOString() } };
}
