import { createPrivateKey, hkdfSync, type KeyObject } from 'node:crypto';
import { SignJWT } from 'jose';
import type { Logger } from '../../domain/logger.ts';
import type { ProviderTraffic } from '../../domain/provider-traffic.ts';
import type { Clock } from '../clock.ts';
import type { ProviderTokenOwner, ProviderTokenStore, StoredProviderToken } from '../provider-token-store.ts';
import { type ApnsKey, fingerprintOfKey } from './key.ts';

/**
 * The provider token (JWT) of one APNs key: taken from the store, renewed in the background, replaced once when APNs
 * calls it expired. Its age is measured on the monotonic clock; only `iat` follows the wall clock.
 */
export interface ProviderToken {
  /** The value of the `authorization` header. Compare by identity: one object for each token. */
  readonly authorization: string;
  readonly jwt: string;
  /** When the token was new, on the monotonic clock. */
  readonly issuedAtMs: number;
  /** Wall clock minus monotonic clock when the token was taken: shows later whether the wall clock was set since. */
  readonly clockOffsetMs: number;
  /** True when the token replaced one that APNs called expired. */
  readonly isReplacement: boolean;
}

/** Apple: a new token at most every 20 minutes, none older than 60. */
const renewAfterMs = 45 * 60_000;
const uselessAfterMs = 59 * 60_000;
const minIntervalMs = 20 * 60_000;
/** Wait after a renewal without a new token (the store's clock runs behind ours, or the store is away). */
const askAgainMs = 15_000;
/** A jump this large means that the wall clock was set, not slewed. */
const clockStepMs = 30_000;

export interface ProviderTokenSourceOptions {
  key: ApnsKey;
  store: ProviderTokenStore;
  clock: Clock;
  logger: Logger;
  traffic: Pick<ProviderTraffic, 'tokens'>;
}

export class ProviderTokenSource {
  readonly #key: ApnsKey;
  readonly #signingKey: KeyObject;
  readonly #owner: ProviderTokenOwner;
  readonly #store: ProviderTokenStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #tokens: ProviderTraffic['tokens'];
  #current: ProviderToken | undefined;
  #previous: ProviderToken | undefined;
  /** When the store is next asked, on the monotonic clock. */
  #renewAtMs = Number.NEGATIVE_INFINITY;
  #renewal: Promise<ProviderToken> | undefined;
  #replacement: Promise<ProviderToken> | undefined;

  constructor({ key, store, clock, logger, traffic }: ProviderTokenSourceOptions) {
    this.#key = key;
    this.#signingKey = createPrivateKey(key.privateKeyPem);
    const secret = this.#signingKey.export({ type: 'pkcs8', format: 'der' });
    const sealingKey = new Uint8Array(hkdfSync('sha256', secret, '', 'carillon provider token', 32));
    this.#owner = { fingerprint: fingerprintOfKey(key), sealingKey };
    this.#store = store;
    this.#clock = clock;
    this.#logger = logger;
    this.#tokens = traffic.tokens;
  }

  /** The token if there is a usable one, at no cost; renews it in the background once it is due. */
  get current(): ProviderToken | undefined {
    const nowMs = this.#clock.monotonicMs();
    const token = this.#current;
    if (token === undefined || nowMs - token.issuedAtMs > uselessAfterMs) return undefined;
    if (nowMs >= this.#renewAtMs) {
      // The token in hand is good for a quarter of an hour more, so a store that is away stops no send.
      this.#renew().catch((error: unknown) => {
        this.#logger.warn({ err: error, keyId: this.#key.keyId }, 'APNs provider token could not be renewed yet');
      });
    }
    return token;
  }

  /** @throws whatever the store throws, when there is no usable token. */
  get(): Promise<ProviderToken> {
    const token = this.current;
    return token === undefined ? this.#renew() : Promise.resolve(token);
  }

  /**
   * Another token than the one APNs called expired: the one that other workers have already put in place, or a new one. Undefined
   * when the refused token was itself just put in place: then the clock is wrong, and more new tokens would only earn
   * TooManyProviderTokenUpdates. After the clock was set, or 20 minutes, there is one new try.
   */
  async replace(refused: ProviderToken): Promise<ProviderToken | undefined> {
    const token = this.#current;
    if (token !== undefined && token !== refused) return token;
    if (refused.isReplacement && !this.#mayReplaceAgain(refused)) return undefined;
    this.#replacement ??= this.#ask(refused.jwt).finally(() => {
      this.#replacement = undefined;
    });
    return await this.#replacement;
  }

  /** APNs counted too many changes: the token that it knows is the one before this. */
  keepPrevious(token: ProviderToken): void {
    const previous = this.#previous;
    if (token !== this.#current || previous === undefined) return;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - previous.issuedAtMs > uselessAfterMs - 5 * 60_000) return;
    this.#current = previous;
    this.#previous = undefined;
    this.#renewAtMs = previous.issuedAtMs + uselessAfterMs - 60_000;
  }

  #mayReplaceAgain(refused: ProviderToken): boolean {
    const ageMs = this.#clock.monotonicMs() - refused.issuedAtMs;
    return ageMs >= minIntervalMs || Math.abs(this.#clockOffsetMs() - refused.clockOffsetMs) > clockStepMs;
  }

  #renew(): Promise<ProviderToken> {
    this.#renewal ??= this.#ask(undefined).finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  async #ask(refusedJwt: string | undefined): Promise<ProviderToken> {
    this.#renewAtMs = this.#clock.monotonicMs() + askAgainMs;
    let isOwn = false;
    const mint = () => {
      isOwn = true;
      return this.#mint();
    };
    const stored = await this.#store
      .getOrCreate(this.#owner, renewAfterMs, mint, refusedJwt)
      .catch((error: unknown) => {
        this.#tokens.failed += 1;
        throw error;
      });
    const nowMs = this.#clock.monotonicMs();
    if (this.#current?.jwt === stored.token) return this.#current;
    this.#tokens[isOwn ? 'made' : 'shared'] += 1;
    const token = this.#tokenOf(stored, refusedJwt !== undefined);
    this.#previous = this.#current;
    this.#current = token;
    this.#renewAtMs = Math.max(token.issuedAtMs + renewAfterMs, nowMs + askAgainMs);
    return token;
  }

  #tokenOf(stored: StoredProviderToken, isReplacement: boolean): ProviderToken {
    return {
      authorization: `bearer ${stored.token}`,
      jwt: stored.token,
      issuedAtMs: this.#clock.monotonicMs() - Math.max(stored.ageMs, 0),
      clockOffsetMs: this.#clockOffsetMs(),
      isReplacement,
    };
  }

  #clockOffsetMs(): number {
    return this.#clock.now().getTime() - this.#clock.monotonicMs();
  }

  async #mint(): Promise<{ token: string; issuedAt: Date }> {
    const { keyId, teamId } = this.#key;
    const issuedAt = this.#clock.now();
    const token = await new SignJWT()
      .setProtectedHeader({ alg: 'ES256', kid: keyId })
      .setIssuer(teamId)
      .setIssuedAt(Math.floor(issuedAt.getTime() / 1000))
      .sign(this.#signingKey);
    this.#logger.info({ keyId, issuedAt }, 'APNs provider token minted');
    return { token, issuedAt };
  }
}
