/** Both kinds of time, as a parameter, so that tests can turn the wall clock without waiting. */
export interface Clock {
  /** What the machine believes: for what others read (iat, expiry). May be wrong and may jump. */
  now(): Date;
  /** Milliseconds that only grow: for ages and deadlines. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
};
