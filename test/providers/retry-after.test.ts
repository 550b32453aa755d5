import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseRetryAfter } from '../../providers/retry-after.ts';

const now = new Date('2026-03-01T12:00:00Z');

describe('Retry-After is read strictly', () => {
  const forms: [string | undefined, number | undefined][] = [
    ['0', 0],
    ['30', 30_000],
    [' 30 ', 30_000],
    ['3600', 3_600_000],
    ['86400', 3_600_000],
    ['99999999999999999999999', 3_600_000],
    ['Sun, 01 Mar 2026 12:00:10 GMT', 10_000],
    ['Sun, 01 Mar 2026 11:00:00 GMT', 0],
    ['Mon, 01 Mar 2027 12:00:00 GMT', 3_600_000],
    ['Sunday, 01-Mar-26 12:00:10 GMT', 10_000],
    ['Sun Mar  1 12:00:10 2026', 10_000],
    ['1.5', undefined],
    ['-3', undefined],
    ['+3', undefined],
    ['3s', undefined],
    ['0x10', undefined],
    ['1e3', undefined],
    ['2026-03-01T12:00:10Z', undefined],
    ['Sun, 99 Mar 2026 12:00:10 GMT', undefined],
    ['soon', undefined],
    ['', undefined],
    [undefined, undefined],
  ];
  for (const [text, expected] of forms) {
    test(JSON.stringify(text) ?? 'absent', () => assert.equal(parseRetryAfter(text, now), expected));
  }
});
