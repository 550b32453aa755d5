import type { Clock } from '../../providers/clock.ts';

/** Real time, moved by the test: the wall clock may jump, the monotonic one only grows. */
export class FakeClock implements Clock {
  wallOffsetMs = 0;
  monotonicOffsetMs = 0;

  now(): Date {
    return new Date(Date.now() + this.wallOffsetMs);
  }

  monotonicMs(): number {
    return performance.now() + this.monotonicOffsetMs;
  }

  /** Time passes: both clocks go on. */
  pass(ms: number): void {
    this.wallOffsetMs += ms;
    this.monotonicOffsetMs += ms;
  }
}
