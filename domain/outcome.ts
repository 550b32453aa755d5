/**
 * How a delivery ended. A closed set: every device of an audience ends with exactly one of these.
 *
 * - `accepted`: the provider took the message. It says nothing about the phone's screen.
 * - `rejected`: this device can never take this message.
 * - `unregistered`: the device token is dead; the device is retired with it.
 * - `expired`: the message's own expiry came first.
 * - `failed`: the provider refused for now until the attempts were spent.
 * - `skipped`: there was no address to send to (device deleted, token gone).
 * - `cancelled`: the notification was cancelled before this device's turn.
 * - `unknown`: the message may have been delivered, and the policy or the limit on repeats forbids sending again.
 */
export const outcomes = [
  'accepted',
  'rejected',
  'unregistered',
  'expired',
  'failed',
  'skipped',
  'cancelled',
  'unknown',
] as const;
export type Outcome = (typeof outcomes)[number];

export type OutcomeCounts = Record<Outcome, number>;

export function emptyOutcomeCounts(): OutcomeCounts {
  return { accepted: 0, rejected: 0, unregistered: 0, expired: 0, failed: 0, skipped: 0, cancelled: 0, unknown: 0 };
}

export function sumOfOutcomes(counts: OutcomeCounts): number {
  let sum = 0;
  for (const outcome of outcomes) sum += counts[outcome];
  return sum;
}
