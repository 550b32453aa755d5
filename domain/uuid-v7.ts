/**
 * A UUID v7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, a count of 12 bits (§6.2, method 1), then random bits. Ids sort by the time
 * they were made; those of one process and one millisecond by the order in which they were made, up to 4 096 of them. The random bits
 * and the variant are those of a version 4, for which runtimes keep randomness ready.
 */
export function uuidV7(now: number = Date.now()): string {
  if (now === latest) {
    count = (count + 1) & 0xfff;
  } else {
    latest = now;
    count = 0;
    const time = now.toString(16).padStart(12, '0');
    beginning = `${time.slice(0, 8)}-${time.slice(8)}-`;
  }
  return `${beginning}${(0x7000 | count).toString(16)}${crypto.randomUUID().slice(18)}`;
}

let latest = -1;
let count = 0;
let beginning = '';
