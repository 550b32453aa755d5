import type { Logger } from '../domain/logger.ts';

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/**
 * For events that can happen to every request: the first is logged at once, then one line at most in `everyMs`, each with a
 * count.
 */
export class ThrottledLog {
  readonly #logger: Logger;
  readonly #monotonicMs: () => number;
  readonly #everyMs: number;
  readonly #lines = new Map<string, { times: number; saidAtMs: number }>();

  constructor(logger: Logger, monotonicMs: () => number, everyMs = 60_000) {
    this.#logger = logger;
    this.#monotonicMs = monotonicMs;
    this.#everyMs = everyMs;
  }

  /** `times`: how often it happened since the line before. The message is a fixed text; variable parts go into `details`. */
  say(level: 'warn' | 'error', details: object, message: string): void {
    const nowMs = this.#monotonicMs();
    const line = this.#lines.get(message) ?? { times: 0, saidAtMs: Number.NEGATIVE_INFINITY };
    line.times += 1;
    if (nowMs - line.saidAtMs >= this.#everyMs) {
      this.#logger[level]({ ...details, times: line.times }, message);
      line.times = 0;
      line.saidAtMs = nowMs;
    }
    this.#lines.set(message, line);
  }
}
