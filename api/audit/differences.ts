import type { JsonObject, JsonValue } from '../../domain/json.ts';

/** A longer value says no more than that it changed. */
const maxLength = 200;

/**
 * What is different, by field: `{"max_devices": {"from": null, "to": 1000}}`. `hidden`: fields of which no value may be told.
 */
export function differences(before: JsonObject, after: JsonObject, hidden: readonly string[] = []): JsonObject {
  const changed: JsonObject = {};
  for (const [field, to] of Object.entries(after)) {
    const from = before[field] ?? null;
    if (JSON.stringify(from) === JSON.stringify(to)) continue;
    changed[field] = hidden.includes(field) || !isShort(from) || !isShort(to) ? 'changed' : { from, to };
  }
  return changed;
}

function isShort(value: JsonValue): boolean {
  return JSON.stringify(value).length <= maxLength;
}
