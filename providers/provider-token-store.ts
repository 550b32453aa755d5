/**
 * Where all workers share the provider token of a key. Apple counts how often the token changes and refuses the sender
 * that changes it more than once in 20 minutes, so there is one for all connections, processes and restarts
 * (https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns).
 */
export interface ProviderTokenStore {
  /**
   * The stored token if it is younger than `olderThanMs` and not the refused one; otherwise a new one, minted by
   * whoever gets there first and seen by all others.
   */
  getOrCreate(
    fingerprint: string,
    olderThanMs: number,
    mint: () => Promise<MintedProviderToken>,
    refusedToken?: string,
  ): Promise<StoredProviderToken>;
}

export interface MintedProviderToken {
  token: string;
  /** By the minting machine's clock, as the token itself says. */
  issuedAt: Date;
}

export interface StoredProviderToken extends MintedProviderToken {
  /** By the store's own clock, so that a wrong clock on a worker cannot make an old token young. */
  ageMs: number;
}

/** For one process: tests, benches, a sender without a database. */
export class InMemoryProviderTokenStore implements ProviderTokenStore {
  readonly #entries = new Map<string, { minted: MintedProviderToken; storedAtMs: number }>();
  /** One at a time for each key, as the database's lock does it. */
  readonly #queue = new Map<string, Promise<unknown>>();
  readonly #monotonicMs: () => number;

  constructor(monotonicMs: () => number = () => performance.now()) {
    this.#monotonicMs = monotonicMs;
  }

  getOrCreate(
    fingerprint: string,
    olderThanMs: number,
    mint: () => Promise<MintedProviderToken>,
    refusedToken?: string,
  ): Promise<StoredProviderToken> {
    const run = async (): Promise<StoredProviderToken> => {
      const entry = this.#entries.get(fingerprint);
      const ageMs = entry === undefined ? 0 : this.#monotonicMs() - entry.storedAtMs;
      if (entry !== undefined && ageMs < olderThanMs && entry.minted.token !== refusedToken) {
        return { ...entry.minted, ageMs };
      }
      const minted = await mint();
      this.#entries.set(fingerprint, { minted, storedAtMs: this.#monotonicMs() });
      return { ...minted, ageMs: 0 };
    };
    const turn = (this.#queue.get(fingerprint) ?? Promise.resolve()).then(run, run);
    this.#queue.set(fingerprint, turn);
    return turn;
  }
}
