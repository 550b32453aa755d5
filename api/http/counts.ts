import { z } from '@hono/zod-openapi';

export const count = z.int().min(0);

/** A count for each of `keys`. */
export function countsBy<K extends string>(keys: readonly K[]) {
  return z.object(Object.fromEntries(keys.map((key) => [key, count])) as Record<K, typeof count>);
}
