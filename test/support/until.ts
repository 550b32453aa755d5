import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';

/** Waits until the condition holds, however busy the machine; fails after the limit, which no healthy run comes near. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what = condition.toString(),
  limitMs = 30_000,
): Promise<void> {
  const end = performance.now() + limitMs;
  while (!(await condition())) {
    assert.ok(performance.now() < end, `still waiting: ${what}`);
    await delay(5);
  }
}
