import { createHash } from 'node:crypto';
import { z } from '@hono/zod-openapi';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import { ApiError } from './api-error.ts';

export const idempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'Must be 1 to 255 visible ASCII characters.')
  .optional()
  .openapi({ description: 'A repeat of the same request under the same key creates nothing new.' });

/** What is left to the app is the same request, also where the app says something else by now; as before there were defaults of apps. */
export function withPolicy<B extends { in_doubt_policy?: InDoubtPolicy | undefined }>(body: B): B {
  return { ...body, in_doubt_policy: body.in_doubt_policy ?? 'redeliver' };
}

/** The same for every order of keys. */
export function hashOf(body: object): string {
  const sorted = (_key: string, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value;
  return createHash('sha256').update(JSON.stringify(body, sorted)).digest('hex');
}

/** 409; `earlier` names what the earlier request made. */
export function keyReused(
  earlier: { notification_id: string } | { message_id: string },
  field?: 'idempotency_key',
): ApiError {
  return new ApiError(409, 'idempotency_key_reused', 'Another request was made under this Idempotency-Key.', {
    field,
    extra: earlier,
  });
}
