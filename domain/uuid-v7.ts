/**
 * A UUID v7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then random bits. Ids sort by the time they were made. The random bits and
 * the variant are those of a version 4, for which runtimes keep randomness ready.
 */
export function uuidV7(now: number = Date.now()): string {
  const time = now.toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}
