/** Waits for parts that are away for a while: this program takes them away. */
import { setTimeout as sleep } from 'node:timers/promises';

const outageMs = 60_000;
const againMs = 100;

/** Tries until it succeeds. @throws the last error when nothing has helped for a minute */
export async function patiently<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + outageMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(againMs);
    }
  }
}

/** Waits for the condition; an error counts as "not yet". @returns whether it held in time */
export async function came(condition: () => Promise<boolean>, limitMs: number): Promise<boolean> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    if (await condition().catch(() => false)) return true;
    if (performance.now() > deadline) return false;
    await sleep(againMs);
  }
}
