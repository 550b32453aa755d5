/**
 * Where all workers share the provider token of a key. Apple counts how often the token changes and refuses a sender that changes
 * it more than once in 20 minutes, so one token serves all connections, processes and restarts
 * (https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns).
 */
export interface ProviderTokenStore {
  /**
   * The stored token if it is younger than `olderThanMs` and not the refused one; otherwise a new one, minted by the first worker
   * to ask and seen by all others.
   */
  getOrCreate(
    owner: ProviderTokenOwner,
    olderThanMs: number,
    mint: () => Promise<MintedProviderToken>,
    refusedToken?: string,
  ): Promise<StoredProviderToken>;
}

export interface ProviderTokenOwner {
  /** Of the credential. */
  fingerprint: string;
  /** 32 bytes that follow from the credential: the token is kept under them, for whoever could make it anyway. */
  sealingKey: Uint8Array;
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
