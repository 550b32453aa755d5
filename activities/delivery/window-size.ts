/** A window holds about so much sending, so that a crash leaves few devices in doubt. */
const windowMs = 100;
export const smallestWindow = 20;

/** Half-way from `size` towards the number of devices that `windowMs` would have sent. Pure. */
export function nextWindowSize(size: number, sent: { devices: number; elapsedMs: number }, largest: number): number {
  const fitting = (sent.devices * windowMs) / Math.max(1, sent.elapsedMs);
  const next = Math.round((size + fitting) / 2);
  return Math.max(smallestWindow, Math.min(largest, next));
}
