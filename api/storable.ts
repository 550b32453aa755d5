import { shortenText } from '../domain/cut-text.ts';
import type { FieldProblem } from './problems.ts';

/** Deeper JSON than this has no meaning in any route: conditions nest 16 deep, data and properties 8. */
export const maxJsonDepth = 64;

/**
 * The first thing in `value` that JSON can say and PostgreSQL cannot store: NUL, half a surrogate pair, a number beyond the
 * range of a double, or nesting without end. Undefined when there is none.
 */
export function findUnstorable(value: unknown, field = '', depth = 0): FieldProblem | undefined {
  if (typeof value === 'string') {
    const message = unstorableText(value);
    return message === undefined ? undefined : { field, message };
  }
  if (typeof value === 'number') {
    return Number.isFinite(value) ? undefined : { field, message: 'The number is too large.' };
  }
  if (typeof value !== 'object' || value === null) return undefined;
  if (depth >= maxJsonDepth)
    return { field: shortenText(field, 120), message: `Nested more than ${maxJsonDepth} levels deep.` };
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const problem = findUnstorable(value[i], `${field}[${i}]`, depth + 1);
      if (problem) return problem;
    }
    return undefined;
  }
  for (const key of Object.keys(value)) {
    const inKey = unstorableText(key);
    const path = field === '' ? key : `${field}.${key}`;
    if (inKey !== undefined) return { field: printable(path), message: `In the name: ${inKey}` };
    const problem = findUnstorable((value as Record<string, unknown>)[key], path, depth + 1);
    if (problem) return problem;
  }
  return undefined;
}

export function unstorableText(text: string): string | undefined {
  if (text.includes('\u0000')) return 'The character NUL (U+0000) cannot be stored.';
  if (!text.isWellFormed()) return 'The text has half a surrogate pair, which is no character.';
  return undefined;
}

function printable(text: string): string {
  return text.replaceAll('\u0000', '\\u0000').toWellFormed();
}
