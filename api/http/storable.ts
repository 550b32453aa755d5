import { shortenText } from '../../domain/cut-text.ts';
import { ApiError, type FieldProblem, invalidField } from './api-error.ts';

/** Deeper JSON than this has no meaning in any route: conditions nest 16 deep, data and properties 8. */
const maxJsonDepth = 64;

/** Only such texts may have a number of 2^53 and more: sixteen digits, or an exponent. */
const mayHaveLargeNumber = /(?:^|[:[,])\s*-?(?:\d[\d.]{15}|\d[\d.]*[eE])/;
const stringOrNumber = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/**
 * `JSON.parse`, but a number that it would change is read as infinite, so that `refuseUnstorable` names its field. From 2^53 on a
 * double cannot tell whole numbers apart (RFC 8259 §6): 9007199254740993 would be stored as …992. What is written as the
 * double is shown, such as 1e300, is kept as it is.
 * @throws {ApiError} 400 with `message`
 */
export function parseJson(text: string, message: string): unknown {
  const isSafe = !mayHaveLargeNumber.test(text);
  try {
    return JSON.parse(isSafe ? text : text.replace(stringOrNumber, (token) => (isChanged(token) ? '1e999' : token)));
  } catch (cause) {
    throw new ApiError(400, 'malformed_json', message, { cause });
  }
}

function isChanged(token: string): boolean {
  if (token[0] === '"') return false;
  const number = Number(token);
  return Math.abs(number) >= 2 ** 53 && digitsOf(token) !== digitsOf(String(number));
}

/** One text for all notations of a number. */
function digitsOf(text: string): string {
  const [, integer = '', fraction = '', exponent = '0'] = /^-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  const digits = (integer + fraction).replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  return `${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`;
}

/**
 * Refuses what JSON can say and what would be stored as something else, or not at all: NUL, half a surrogate pair, a number
 * beyond what a double keeps (of `parseJson`), or nesting without end.
 * @throws {ApiError} 422 with the first field of that kind.
 */
export function refuseUnstorable(value: unknown): void {
  const problem = findUnstorable(value, '', 0);
  if (problem) throw invalidField(problem.field, problem.message);
}

function findUnstorable(value: unknown, field: string, depth: number): FieldProblem | undefined {
  if (typeof value === 'string') {
    const message = unstorableText(value);
    return message === undefined ? undefined : { field, message };
  }
  if (typeof value === 'number') {
    return Number.isFinite(value) ? undefined : { field: shortenText(field, 120), message: tooLarge };
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

const tooLarge = 'The number is too large, or has more digits than can be kept: send it as text.';

/** Why a text cannot be stored; undefined where it can. */
export function unstorableText(text: string): string | undefined {
  if (text.includes('\u0000')) return 'The character NUL (U+0000) cannot be stored.';
  if (!text.isWellFormed()) return 'The text has half a surrogate pair, which is no character.';
  return undefined;
}

function printable(text: string): string {
  return text.replaceAll('\u0000', '\\u0000').toWellFormed();
}
