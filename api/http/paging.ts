import { z } from '@hono/zod-openapi';
import { uuidPattern } from './uuid.ts';

/** `limit` of a listing that is asked for by its URL. */
export function limitInQuery(max: number, fallback: number) {
  return z
    .string()
    .regex(/^\d{1,6}$/, 'Must be a whole number.')
    .transform(Number)
    .refine((limit) => limit >= 1 && limit <= max, `Must be between 1 and ${max}.`)
    .default(fallback)
    .openapi({ type: 'integer', minimum: 1, maximum: max, default: fallback, description: 'Items a page.' });
}

/** `limit` of a listing that is asked for by a body. */
export function limitInBody(max: number, fallback: number) {
  return z.int().min(1).max(max).default(fallback);
}

/** `cursor` of listings in order of row ids. What it holds may change; what it looks like is in the document, to be exact. */
export const rowCursor = cursorOf(/^[0-9]{1,15}$/)
  .transform(Number)
  .optional();

/** `cursor` of listings in order of batch and position. */
export const deliveryCursor = cursorOf(/^[0-9]{1,9}-[0-9]{1,9}$/)
  .transform((text) => {
    const [batchSeq, position] = text.split('-').map(Number);
    return { batchSeq: batchSeq!, position: position! };
  })
  .optional();

/** `cursor` of listings in order of lane and position. */
export const messageDeliveryCursor = cursorOf(/^[0-9]{1,9}-[0-9]{1,15}$/)
  .transform((text) => {
    const [laneId, position] = text.split('-').map(Number);
    return { laneId: laneId!, position: position! };
  })
  .optional();

/** `cursor` of listings in order of hour and type. */
export const hourCursor = cursorOf(/^[0-9]{1,14}-[a-z][a-z0-9_.]{0,39}$/)
  .transform((text) => {
    const [ms, type] = text.split('-');
    return { hour: new Date(Number(ms)), type: type! };
  })
  .optional();

/** `cursor` of listings in order of the ids of notifications or messages. */
export const uuidCursor = cursorOf(uuidPattern).optional();

function cursorOf(pattern: RegExp) {
  return z.string().regex(pattern, 'Must be the next_cursor of an earlier page, or the cursor of a line.').openapi({
    type: 'string',
    pattern: pattern.source,
    description: '`next_cursor` of the page before, or `cursor` of the line before.',
  });
}

export const nextCursor = z
  .string()
  .nullable()
  .openapi({ description: 'For the page after this one; null on the last page.' });

/** A page of what `read` returns in order. It is asked for one item more than a page holds: that item tells of a next page. */
export async function readPage<T>(
  limit: number,
  read: (limit: number) => Promise<T[]>,
  cursorAfter: (item: T) => string,
): Promise<{ items: T[]; next_cursor: string | null }> {
  const found = await read(limit + 1);
  const items = found.slice(0, limit);
  return { items, next_cursor: found.length > limit ? cursorAfter(items.at(-1)!) : null };
}
