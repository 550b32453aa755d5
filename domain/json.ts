export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue };
export type JsonObject = { [key: string]: JsonValue };

const encoder = new TextEncoder();
/** Most texts are: nothing need be encoded to count their bytes. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are a byte each, as the others of ASCII are.
const isAscii = /^[\x00-\x7f]*$/;

/** A text's length in UTF-8 bytes, which both providers count; never its length in characters. */
export function utf8Bytes(text: string): number {
  return isAscii.test(text) ? text.length : encoder.encode(text).length;
}

export function jsonBytes(value: JsonValue): number {
  return utf8Bytes(JSON.stringify(value));
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Lays an override over what was built: objects are merged key by key, any other value replaces, null removes a key. A subtree
 * that exists only in the override is taken as it is, nulls included.
 */
export function mergeOver(base: JsonObject, override: JsonObject): JsonObject {
  const merged: JsonObject = { ...base };
  for (const [key, value] of Object.entries(override)) {
    const existing = Object.hasOwn(merged, key) ? merged[key] : undefined;
    if (value === null) delete merged[key];
    else define(merged, key, isJsonObject(existing) && isJsonObject(value) ? mergeOver(existing, value) : value);
  }
  return merged;
}

/** Sets an own property whatever its name: assigning to `__proto__` would set the prototype and lose the key. */
export function define(object: JsonObject, key: string, value: JsonValue): void {
  Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
}
