import { z } from '@hono/zod-openapi';
import type { ApiKey } from '../../db/api-keys.ts';
import { appScopes, scopes } from '../../domain/scopes.ts';
import { appParams } from '../access/app-params.ts';
import { notFound } from '../http/api-error.ts';
import { answeredInstant, answeredInstantOrNull, instant } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';
import { isUuid } from '../http/uuid.ts';

export const defaultOverlapSeconds = 86_400;
const maxOverlapSeconds = 30 * 86_400;

export const keyParams = appParams.extend({
  id: z.string().openapi({ format: 'uuid', example: '019c0000-0000-7000-8000-000000000000' }),
});

/** An id that is no UUID cannot exist. */
export function checkedKeyId(id: string): string {
  if (!isUuid(id)) throw notFound('key');
  return id;
}

export const newKeySchema = z
  .strictObject({
    name: z.string().min(1).max(100).openapi({ description: 'What people know it by; need not be the only one.' }),
    scopes: z
      .array(z.enum(appScopes))
      .min(1)
      .max(100)
      .openapi({ description: 'All that it may do: no scope contains another, and there is no wildcard.' }),
    expires_at: instant.optional().openapi({ description: 'Left out: it lives until it is revoked.' }),
    requests_per_second: z
      .int()
      .min(1)
      .max(1_000_000)
      .optional()
      .openapi({ description: 'In each process of the API. Left out: as the settings say.' }),
  })
  .openapi('NewApiKey', { example: { name: 'shop backend', scopes: ['devices:write', 'messages:send'] } });

export const rotationSchema = z
  .strictObject({
    overlap_seconds: z
      .int()
      .min(0)
      .max(maxOverlapSeconds)
      .default(defaultOverlapSeconds)
      .openapi({ description: 'How long the key before it lives on, at most.' }),
  })
  .openapi('KeyRotation', { example: { overlap_seconds: 3_600 } });

const apiKeySchema = z
  .object({
    id: z.uuid(),
    name: z.string(),
    scopes: z.array(z.enum(scopes)),
    requests_per_second: z.int().nullable(),
    created_at: answeredInstant,
    expires_at: answeredInstantOrNull,
    last_used_at: answeredInstantOrNull.openapi({ description: 'To the minute.' }),
    revoked_at: answeredInstantOrNull,
  })
  .openapi('ApiKey');

export const madeKeySchema = z
  .object({
    ...apiKeySchema.shape,
    key: z.string().openapi({ description: 'The key itself, here and nowhere else.', example: 'ck_…' }),
  })
  .openapi('MadeApiKey');

export const keyPageSchema = z.object({ keys: z.array(apiKeySchema), next_cursor: nextCursor }).openapi('ApiKeyPage');

export function fromApiKey(key: ApiKey): z.infer<typeof apiKeySchema> {
  return {
    id: key.id,
    name: key.name,
    scopes: key.scopes,
    requests_per_second: key.requestsPerSecond ?? null,
    created_at: key.createdAt.toISOString(),
    expires_at: key.expiresAt?.toISOString() ?? null,
    last_used_at: key.lastUsedAt?.toISOString() ?? null,
    revoked_at: key.revokedAt?.toISOString() ?? null,
  };
}
