/**
 * What the control API takes: an unknown field or a value of another kind is refused by name. If it were taken silently, a
 * misspelt fault would never happen, and the test that wanted it would pass.
 */

/** The caller's fault: answered 400 with its message. */
export class BadRequest extends Error {}

export interface Kind {
  /** In words, to follow "must be". */
  readonly what: string;
  readonly allows: (value: unknown) => boolean;
  readonly isNeeded?: boolean;
}

/** A kind for every field of `T`: a field added to `T` must be added here. */
export type Fields<T> = { readonly [K in keyof T]-?: Kind };

export const text: Kind = { what: 'a text', allows: (value) => typeof value === 'string' };
export const flag: Kind = { what: 'true or false', allows: (value) => typeof value === 'boolean' };
export const wholeNumber = numberOf(
  'a whole number of at least 0',
  (value) => Number.isSafeInteger(value) && value >= 0,
);
export const ordinal = numberOf('a whole number of at least 1', (value) => Number.isSafeInteger(value) && value >= 1);
export const httpStatus = numberOf(
  'an HTTP status',
  (value) => Number.isSafeInteger(value) && value >= 100 && value < 600,
);
export const anyNumber = numberOf('a number', () => true);

export function numberOf(what: string, allows: (value: number) => boolean): Kind {
  return { what, allows: (value) => typeof value === 'number' && allows(value) };
}

export function oneOf(values: readonly string[]): Kind {
  return {
    what: `one of ${values.join(', ')}`,
    allows: (value) => (values as readonly unknown[]).includes(value),
  };
}

export function either(...kinds: Kind[]): Kind {
  return {
    what: kinds.map(({ what }) => what).join(', or '),
    allows: (value) => kinds.some(({ allows }) => allows(value)),
  };
}

export const none: Kind = { what: 'null', allows: (value) => value === null };

export function listOf({ what, allows }: Kind): Kind {
  return { what: `a list, each ${what}`, allows: (value) => Array.isArray(value) && value.every(allows) };
}

export function needed(kind: Kind): Kind {
  return { ...kind, isNeeded: true };
}

/** @param where what the fields belong to, as a prefix of their names: `match.` */
export function checkFields(value: unknown, fields: Readonly<Record<string, Kind>>, where = ''): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new BadRequest(`${where === '' ? 'the body' : where.slice(0, -1)} must be an object`);
  }
  const known = Object.keys(fields);
  for (const [name, field] of Object.entries(value)) {
    const kind = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (kind === undefined) {
      const others = known.length === 0 ? 'there is none' : `known are ${known.join(', ')}`;
      throw new BadRequest(`${where}${name}: no such field; ${others}`);
    }
    if (!kind.allows(field)) throw new BadRequest(`${where}${name} must be ${kind.what}`);
  }
  for (const name of known) {
    if (fields[name]!.isNeeded && !Object.hasOwn(value, name)) throw new BadRequest(`${where}${name} is needed`);
  }
}
