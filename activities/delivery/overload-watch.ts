/** Refusals on behalf of the whole provider, so many and so large a share of the answers, before all devices wait. */
const minRefusals = 5;
const minShare = 0.05;
/** Answers after which older ones count half. */
const memory = 200;
/** Requests in a row that a provider failed, each sent after the first of them had failed, before all devices wait. */
const maxFailuresInARow = 5;
/** The wait grows with each outage in a row up to this: a provider that is back must not stand idle for long. */
const longestOutageWaitMs = 60_000;

/**
 * How a provider has lately been, at one host and by one process:
 * - `well`: it took the message, or refused it for a reason of the device.
 * - `refusal`: it said that it wants fewer requests altogether (APNs 503, FCM 429 without a scope).
 * - `failure`: an error of the server, or no answer at all.
 */
export type ProviderSign = 'well' | 'refusal' | 'failure';

/**
 * Tells a provider that is overloaded, or a quota that is used up, or an outage, from a fault here and there. They look the
 * same in one answer; if each single one stopped the app's sends, one bad server in a thousand requests would hold up a
 * campaign. The refused device itself always waits.
 */
export class ProviderHealth {
  #answered = 0;
  #refused = 0;
  #sent = 0;
  /** Number of the last request sent when the first of the failures in a row came; undefined: the last answer was well. */
  #failingSince: number | undefined;
  #failuresInARow = 0;
  #lastWellAt = Number.NEGATIVE_INFINITY;
  #outages = 0;

  /** A request leaves. @returns its number, for `note` */
  begin(): number {
    this.#sent += 1;
    return this.#sent;
  }

  /** Milliseconds since an answer was well; infinity: never. */
  get msSinceWell(): number {
    return performance.now() - this.#lastWellAt;
  }

  /** Whether nothing but failures has come lately: only a few are to be sent at once. */
  get isFailing(): boolean {
    return this.#failuresInARow >= maxFailuresInARow;
  }

  /** Notes one answer. @returns true when all devices should wait */
  note(number: number, sign: ProviderSign): boolean {
    if (this.#answered >= memory) {
      this.#answered /= 2;
      this.#refused /= 2;
    }
    this.#answered += 1;
    if (sign === 'well') {
      this.#lastWellAt = performance.now();
      this.#failingSince = undefined;
      this.#failuresInARow = 0;
      this.#outages = 0;
      return false;
    }
    if (sign === 'refusal') this.#refused += 1;
    // Those already under way say nothing new: a connection that breaks takes all of its requests with it.
    if (this.#failingSince === undefined) {
      this.#failingSince = this.#sent;
      this.#failuresInARow = 1;
    } else if (number > this.#failingSince) this.#failuresInARow += 1;
    const isRefusing = this.#refused >= minRefusals && this.#refused >= this.#answered * minShare;
    return this.isFailing || (sign === 'refusal' && isRefusing);
  }

  /** How long all devices wait now: twice as long with each time that nothing had changed. */
  outageWaitMs(baseMs: number): number {
    const waitMs = Math.min(baseMs * 2 ** Math.min(this.#outages, 30), longestOutageWaitMs);
    this.#outages += 1;
    return waitMs;
  }
}

/** One for all sends of a process. */
export class OverloadWatch {
  readonly #scopes = new Map<string, ProviderHealth>();

  /** The health of what is behind a scope: one app's provider at one host. */
  of(scope: string): ProviderHealth {
    let health = this.#scopes.get(scope);
    if (health === undefined) {
      health = new ProviderHealth();
      this.#scopes.set(scope, health);
    }
    return health;
  }
}
