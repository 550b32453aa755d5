import { z } from '@hono/zod-openapi';
import { providerNames } from '../../domain/device.ts';
import type { UnreachableHost } from '../../domain/notification.ts';
import { answeredInstant } from '../http/instant.ts';

/** Without a secret: `/readyz` shows it to everyone. */
export const unreachableHostSchema = z
  .object({
    provider: z.enum(providerNames),
    host: z.string(),
    since: answeredInstant,
    last_tried_at: answeredInstant,
    error: z.string().openapi({ description: 'Of the last attempt.' }),
  })
  .openapi('UnreachableHost', {
    example: {
      provider: 'apns',
      host: 'api.push.apple.com',
      since: '2026-11-26T09:41:00.000Z',
      last_tried_at: '2026-11-26T09:47:20.000Z',
      error: 'connect_failed ECONNREFUSED',
    },
  });

export function fromUnreachableHost(host: UnreachableHost): z.infer<typeof unreachableHostSchema> {
  const { lastTriedAt, since, ...rest } = host;
  return { ...rest, since: since.toISOString(), last_tried_at: lastTriedAt.toISOString() };
}
