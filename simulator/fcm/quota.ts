/** FCM's send quota: a bucket per project, refilled in full each minute, at the project's own second. */
import type { SimulatorClock } from '../clock.ts';

/** In whole seconds, as an HTTP date, not at all, as nonsense, or as a year's worth of seconds. */
export const retryAfterForms = ['seconds', 'date', 'absent', 'malformed', 'huge'] as const;
export type RetryAfterForm = (typeof retryAfterForms)[number];

export interface QuotaOptions {
  /** Messages a minute and project; null: no limit. Google's default is 600 000. */
  perMinute: number | null;
  retryAfter: RetryAfterForm;
  /** Where the project's minutes begin, in seconds after the clock's. */
  phaseSeconds: number;
}

export class FcmQuota {
  options: QuotaOptions = { perMinute: null, retryAfter: 'seconds', phaseSeconds: 17 };
  /** Requests refused since the start. */
  refused = 0;
  readonly #clock: SimulatorClock;
  readonly #used = new Map<string, { minute: number; count: number }>();

  constructor(clock: SimulatorClock) {
    this.#clock = clock;
  }

  /** Takes one message out of the project's bucket; false when the bucket is empty. */
  take(project: string): boolean {
    const { perMinute, phaseSeconds } = this.options;
    if (perMinute === null) return true;
    const minute = Math.floor((this.#clock.now() / 1000 - phaseSeconds) / 60);
    const used = this.#used.get(project);
    if (used === undefined || used.minute !== minute) {
      this.#used.set(project, { minute, count: 1 });
      if (perMinute >= 1) return true;
    } else if (used.count < perMinute) {
      used.count++;
      return true;
    }
    this.refused++;
    return false;
  }

  /** Applies new options, with full buckets. */
  configure(options: Partial<QuotaOptions>): void {
    this.options = { ...this.options, ...options };
    this.#used.clear();
  }

  /** The headers that tell when the bucket is full again. */
  retryAfterHeaders(): string[] {
    const nowSeconds = this.#clock.now() / 1000;
    const left = Math.ceil(60 - ((((nowSeconds - this.options.phaseSeconds) % 60) + 60) % 60));
    switch (this.options.retryAfter) {
      case 'seconds':
        return ['retry-after', String(left)];
      case 'date':
        return ['retry-after', new Date((nowSeconds + left) * 1000).toUTCString()];
      case 'absent':
        return [];
      case 'malformed':
        return ['retry-after', 'soon'];
      case 'huge':
        return ['retry-after', '31536000'];
    }
  }
}
