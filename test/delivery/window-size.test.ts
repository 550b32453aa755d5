import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { nextWindowSize } from '../../activities/delivery/window-size.ts';

const largest = 1_000;
const rows: [rule: string, size: number, devices: number, elapsedMs: number, next: number][] = [
  ['a window that took its tenth of a second stays', 400, 400, 100, 400],
  ['a quick one grows half-way to what would have fitted', 400, 400, 50, 600],
  ['a slow one shrinks half-way', 400, 400, 200, 300],
  ['a small rest of a batch counts by its speed, not by its size', 400, 10, 2.5, 400],
  ['one that took no time grows to the largest', 20, 20, 0, largest],
  ['one of a provider that takes seconds shrinks to the smallest', 30, 30, 60_000, 20],
];

describe('the size of the next window', () => {
  for (const [rule, size, devices, elapsedMs, next] of rows) {
    test(`${rule}: ${size} to ${next}`, () => {
      assert.equal(nextWindowSize(size, { devices, elapsedMs }, largest), next);
    });
  }

  test('comes from the smallest to what fits within a few windows', () => {
    let size = 20;
    // Ten devices a millisecond.
    for (let n = 0; n < 7; n++) size = nextWindowSize(size, { devices: size, elapsedMs: size / 10 }, largest);
    assert.ok(size > 950, `${size} devices`);
  });
});
