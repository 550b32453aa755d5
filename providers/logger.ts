/** What the providers need of pino. */
export interface ProviderLogger {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export const silentLogger: ProviderLogger = { info() {}, warn() {}, error() {} };

/** Lets each key through once, up to a number of keys: a new word in a million answers is worth one line, not a million. */
export class OncePerKey {
  readonly #seen = new Set<string>();
  readonly #maxKeys = 100;

  isFirst(key: string): boolean {
    if (this.#seen.has(key) || this.#seen.size >= this.#maxKeys) return false;
    this.#seen.add(key);
    return true;
  }
}

/** For what can happen to every request: the first time is said at once, then at most once in `everyMs`, each time with a count. */
export class ThrottledLog {
  readonly #logger: ProviderLogger;
  readonly #monotonicMs: () => number;
  readonly #everyMs: number;
  readonly #lines = new Map<string, { times: number; saidAtMs: number }>();

  constructor(logger: ProviderLogger, monotonicMs: () => number, everyMs = 60_000) {
    this.#logger = logger;
    this.#monotonicMs = monotonicMs;
    this.#everyMs = everyMs;
  }

  /** `times`: how often it happened since the line before. A message is a fixed text; what differs goes into `details`. */
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
