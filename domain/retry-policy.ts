/** When a device that was refused for now is tried again. Pure: randomness comes in. */
export interface RetryPolicy {
  /** The wait after the first attempt, before jitter. */
  baseMs: number;
  /** The longest wait, also where a provider asks for more. */
  maxMs: number;
  maxAttempts: number;
}

/**
 * The wait after attempt number `attempts` (from 1): "full jitter", a random share of a ceiling that doubles with each attempt,
 * so that devices refused together do not come back together. Never shorter than the provider asked for, and never longer than
 * the policy's maximum, even if the provider asks for more.
 */
export function retryDelayMs(
  policy: RetryPolicy,
  attempts: number,
  askedMs: number | undefined,
  random: number,
): number {
  const ceiling = policy.baseMs * 2 ** Math.min(attempts - 1, 30);
  return Math.round(Math.min(policy.maxMs, Math.max(ceiling * random, askedMs ?? 0)));
}
