import type {
  MintedProviderToken,
  ProviderTokenOwner,
  ProviderTokenStore,
  StoredProviderToken,
} from '../../providers/provider-token-store.ts';

/** A store for one process. */
export class InMemoryProviderTokenStore implements ProviderTokenStore {
  readonly #entries = new Map<string, { minted: MintedProviderToken; storedAtMs: number }>();
  /** One call at a time for each key, as the database's lock does it. */
  readonly #queue = new Map<string, Promise<unknown>>();
  readonly #monotonicMs: () => number;

  constructor(monotonicMs: () => number = () => performance.now()) {
    this.#monotonicMs = monotonicMs;
  }

  getOrCreate(
    { fingerprint }: ProviderTokenOwner,
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
