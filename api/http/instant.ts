import { z } from '@hono/zod-openapi';

/** Instants come with their offset, `2026-12-24T18:00:00Z`: a local time without a zone means a different moment everywhere. */
export const instant = z
  .string()
  .refine(isInstant, 'Must be an ISO 8601 instant with an offset, such as 2026-12-24T18:00:00Z.')
  .openapi({ type: 'string', format: 'date-time' });

const withSeconds = z.iso.datetime({ offset: true });

/** Seconds may be left out. */
function isInstant(text: string): boolean {
  return withSeconds.safeParse(text.replace(/T(\d\d:\d\d)(?=Z|[+-])/, 'T$1:00')).success;
}

export function toDate(text: string | undefined): Date | undefined {
  return text === undefined ? undefined : new Date(text);
}

/** An instant in an answer. */
export const answeredInstant = z.iso.datetime().openapi({ type: 'string', format: 'date-time' });

/** Not `.nullable()` of the other: in the document its type would stay a plain string. */
export const answeredInstantOrNull = z.iso
  .datetime()
  .nullable()
  .openapi({ type: ['string', 'null'], format: 'date-time' });
