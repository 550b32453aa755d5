import { InvalidArgumentError } from 'commander';
import { type Scope, scopes } from '../domain/scopes.ts';

/** Readers of option values. What they throw is said behind the option's name. */

/** `_` may stand between digits. */
export function wholeNumber(text: string): number {
  const number = /^\d[\d_]*$/.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw new InvalidArgumentError('Must be a whole number.');
  return number;
}

/** Clears what was set. The parser takes null for an option without a value. */
export const none = 'none';

export function orNone<T>(read: (text: string) => T): (text: string) => T | typeof none {
  return (text) => (text === none ? none : read(text));
}

export function word(text: string): string {
  if (text === '') throw new InvalidArgumentError('Must not be empty.');
  return text;
}

/** With commas between them. */
export function words(text: string): string[] {
  return text.split(',').map((one) => word(one.trim()));
}

export function scopeList(text: string): Scope[] {
  const unknown = words(text).find((one) => !(scopes as readonly string[]).includes(one));
  if (unknown !== undefined) throw new InvalidArgumentError(`"${unknown}" is not one of ${scopes.join(', ')}.`);
  return words(text) as Scope[];
}

const secondsOf = { s: 1, m: 60, h: 3_600, d: 86_400 } as const;

/** `90d`, `12h`, `30m`, `45s`: in seconds. */
export function duration(text: string): number {
  const [, digits, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('Must be a duration such as 90d, 12h, 30m or 45s.');
  return Number(digits) * secondsOf[unit as keyof typeof secondsOf];
}

/** ISO 8601, a day by itself begins at midnight UTC; or a duration, back from now. */
export function instantOrAge(text: string): string {
  if (/^\d+[smhd]$/.test(text)) return new Date(Date.now() - duration(text) * 1_000).toISOString();
  return instant(text);
}

export function instant(text: string): string {
  const isInstant = /^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d))?$/.test(text);
  const ms = isInstant ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(ms)) throw new InvalidArgumentError('Must be a day or an instant such as 2026-12-24T18:00:00Z.');
  return new Date(ms).toISOString();
}
