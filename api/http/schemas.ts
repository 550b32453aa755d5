import { z } from '@hono/zod-openapi';
import { utf8Bytes } from '../../domain/json.ts';
import type { JsonValue } from '../../domain/message.ts';

export type JsonObject = { [key: string]: JsonValue };

export interface JsonObjectLimits {
  maxKeys: number;
  maxKeyBytes: number;
  /** Of the JSON text in UTF-8. */
  maxBytes: number;
  maxDepth: number;
}

/**
 * An object of any JSON values within limits. Taken as it is: a schema of keys and values would copy it, and lose a key named
 * `__proto__` on the way.
 */
export function jsonObject(limits: JsonObjectLimits, description: string) {
  return z
    .custom<JsonObject>((value) => typeof value === 'object' && value !== null && !Array.isArray(value), {
      error: 'Must be an object.',
    })
    .superRefine((value, context) => {
      const message = limitProblem(value, limits);
      if (message !== undefined) context.addIssue({ code: 'custom', message });
    })
    .openapi({
      type: 'object',
      additionalProperties: true,
      maxProperties: limits.maxKeys,
      // Part of JSON Schema that the library's types do not know.
      ...({ propertyNames: { minLength: 1, maxLength: limits.maxKeyBytes } } as object),
      description: `${description} At most ${limits.maxKeys} keys of ${limits.maxKeyBytes} bytes, ${limits.maxDepth} levels, ${limits.maxBytes} bytes of JSON.`,
    });
}

/** A sentence, when the object is beyond a limit. */
export function limitProblem(value: JsonObject, limits: JsonObjectLimits): string | undefined {
  const keys = Object.keys(value);
  if (keys.length > limits.maxKeys) return `Has ${keys.length} keys, ${limits.maxKeys} are allowed.`;
  for (const key of keys) {
    if (key === '') return 'A key must not be empty.';
    if (key.length * 3 > limits.maxKeyBytes && utf8Bytes(key) > limits.maxKeyBytes) {
      return `A key has more than ${limits.maxKeyBytes} bytes.`;
    }
  }
  if (isDeeperThan(value, limits.maxDepth)) return `Nested more than ${limits.maxDepth} levels deep.`;
  const text = JSON.stringify(value);
  const bytes = text.length * 3 > limits.maxBytes ? utf8Bytes(text) : text.length;
  return bytes > limits.maxBytes ? `Has ${bytes} bytes of JSON, ${limits.maxBytes} are allowed.` : undefined;
}

function isDeeperThan(value: JsonValue, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((child) => isDeeperThan(child, levels - 1));
}

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

/** An instant in an answer. */
export const answeredInstant = z.iso.datetime().openapi({ type: 'string', format: 'date-time' });

/** Not `.nullable()` of the other: in the document its type would stay a plain string. */
export const answeredInstantOrNull = z.iso
  .datetime()
  .nullable()
  .openapi({ type: ['string', 'null'], format: 'date-time' });

/** `limit` of a listing. */
export function pageLimit(max: number, fallback: number) {
  return z
    .string()
    .regex(/^\d{1,6}$/, 'Must be a whole number.')
    .transform(Number)
    .refine((limit) => limit >= 1 && limit <= max, `Must be between 1 and ${max}.`)
    .default(fallback)
    .openapi({ type: 'integer', minimum: 1, maximum: max, default: fallback, description: 'Items a page.' });
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** `cursor` of listings in order of row ids. What it holds may change; what it looks like is in the document, to be exact. */
export const rowCursor = cursorOf(/^[0-9]{1,15}$/)
  .transform(Number)
  .optional();

/** `cursor` of listings in order of notification ids. */
export const uuidCursor = cursorOf(uuid).optional();

function cursorOf(pattern: RegExp) {
  return z
    .string()
    .regex(pattern, 'Must be the next_cursor of an earlier page.')
    .openapi({ type: 'string', pattern: pattern.source, description: '`next_cursor` of the page before.' });
}

export const nextCursor = z
  .string()
  .nullable()
  .openapi({ description: 'For the page after this one; null on the last page.' });

export function isUuid(text: string): boolean {
  return uuid.test(text.toLowerCase());
}
