import { z } from '@hono/zod-openapi';
import type { JsonValue } from '../../domain/json.ts';
import { isJsonObject, type JsonObject, utf8Bytes } from '../../domain/json.ts';

interface JsonObjectLimits {
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
    .custom<JsonObject>((value) => isJsonObject(value as JsonValue), { error: 'Must be an object.' })
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
