/** OAuth access tokens that the fake token endpoint has issued and the fake FCM accepts. */
import { createHash } from 'node:crypto';
import type { SimulatorClock } from '../clock.ts';

export class AccessTokens {
  /** `expires_in` of new tokens, in seconds. */
  expiresInSeconds = 3599;
  issued = 0;
  readonly #clock: SimulatorClock;
  readonly #seed: number;
  /** Expiry in milliseconds by token. */
  readonly #expiresAtMs = new Map<string, number>();

  constructor(clock: SimulatorClock, seed: number) {
    this.#clock = clock;
    this.#seed = seed;
  }

  issue(): { accessToken: string; expiresInSeconds: number } {
    this.issued++;
    const digest = createHash('sha512').update(`${this.#seed}/${this.issued}`).digest('base64url');
    const accessToken = `ya29.c.${digest}${digest.slice(0, 40)}`;
    this.#expiresAtMs.set(accessToken, this.#clock.now() + this.expiresInSeconds * 1000);
    return { accessToken, expiresInSeconds: this.expiresInSeconds };
  }

  isValid(accessToken: string): boolean {
    const expiresAtMs = this.#expiresAtMs.get(accessToken);
    return expiresAtMs !== undefined && this.#clock.now() < expiresAtMs;
  }

  /** Every token issued so far is refused from now on. */
  revokeAll(): void {
    this.#expiresAtMs.clear();
  }
}
