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
