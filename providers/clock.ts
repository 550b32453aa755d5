/** Both kinds of time, as a parameter, so that tests can move the wall clock without waiting. */
export interface Clock {
  /** The machine's wall clock, for times that others read (iat, expiry). May be wrong and may jump. */
  now(): Date;
  /** Milliseconds that only grow: for ages and deadlines. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
};
