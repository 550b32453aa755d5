/** The longest wait that a provider may ask for: a huge or broken value must not park a send for days. */
export const maxRetryAfterMs = 3_600_000;

const seconds = /^\d+$/;
/** The three forms of RFC 9110 §5.6.7: IMF-fixdate, the obsolete RFC 850 form, and asctime (which has no zone and means GMT). */
const imfFixdate = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;
const rfc850Date = /^[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/;
const asctimeDate = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/;

/**
 * Milliseconds to wait, from the text of a Retry-After header (RFC 9110 §10.2.3), from 0 to one hour.
 * Undefined when there is none, or not exactly in one of the allowed forms (`1.5`, `-3`, `soon`): then the caller's own rule
 * holds.
 * @param now the answer's own Date where it has one, so that a wrong clock on this machine does not change the wait.
 */
export function parseRetryAfter(text: string | undefined, now: Date): number | undefined {
  if (text === undefined) return undefined;
  const trimmed = text.trim();
  if (seconds.test(trimmed)) return Math.min(Number(trimmed) * 1000, maxRetryAfterMs);
  const at = parseHttpDate(trimmed);
  if (at === undefined) return undefined;
  return Math.min(Math.max(at.getTime() - now.getTime(), 0), maxRetryAfterMs);
}

/** An HTTP date (RFC 9110 §5.6.7), or undefined for anything else. */
export function parseHttpDate(text: string | undefined): Date | undefined {
  if (text === undefined) return undefined;
  const withZone = asctimeDate.test(text) ? `${text} GMT` : text;
  if (withZone === text && !imfFixdate.test(text) && !rfc850Date.test(text)) return undefined;
  const at = new Date(withZone);
  return Number.isNaN(at.getTime()) ? undefined : at;
}
