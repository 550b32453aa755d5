/**
 * PostgreSQL's clock, as far as this process can know it: the one clock that all workers, registrations and schedules share.
 * Between two looks at it the monotonic clock goes on, so that a wall clock that is wrong or is set changes nothing.
 */
export class DatabaseClock {
  /** Database clock minus monotonic clock. Until the first look: by this machine's clock. */
  #offsetMs = performance.timeOrigin;

  /** Milliseconds since 1970. */
  readonly nowMs = (): number => performance.now() + this.#offsetMs;

  instantIn(ms: number): Date {
    return new Date(this.nowMs() + ms);
  }

  /**
   * A statement that was sent at `sentAtMs` on the monotonic clock has just brought the database's own time. What was known before
   * holds as long as it fits in between: a slow answer says less than a quick one before it.
   */
  look(databaseMs: number, sentAtMs: number): void {
    const earliest = databaseMs - performance.now();
    const latest = databaseMs - sentAtMs;
    this.#offsetMs = Math.min(Math.max(this.#offsetMs, earliest), latest);
  }
}
