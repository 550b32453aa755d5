import type { HostScope } from '../../db/provider-hosts.ts';
import type { Logger } from '../../domain/logger.ts';

/** Many requests fail at once when a host cannot be reached: one of them is stored, … */
const writeEveryMs = 1_000;
/** … and one line a minute says how many. */
const logEveryMs = 60_000;

interface Outage {
  since: Date;
  unsent: number;
  writtenAt: number;
  loggedAt: number;
}

/** Which hosts cannot be reached, as far as this process knows: says when that is to be stored, and logs it. One for all sends. */
export class ProviderHosts {
  readonly #log: Logger;
  readonly #outages = new Map<string, Outage>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Asked for every request: there is nearly always nothing to note. */
  get isAnyAway(): boolean {
    return this.#outages.size > 0;
  }

  /** A request could not be sent. @returns true when that should be stored now */
  noteUnsent(scope: HostScope, error: string, retryMs: number): boolean {
    const outage = this.#outageOf(scope);
    const now = performance.now();
    outage.unsent += 1;
    if (now - outage.loggedAt >= logEveryMs) {
      const { appId, provider, host } = scope;
      const { since, unsent } = outage;
      this.#log.warn({ appId, provider, host, since, error, unsent }, 'a provider cannot be reached');
      outage.loggedAt = now;
      outage.unsent = 0;
    }
    // With the error the instant of the next try is stored: a window that was let through must not keep the others waiting.
    if (now - outage.writtenAt < Math.min(writeEveryMs, retryMs)) return false;
    outage.writtenAt = now;
    return true;
  }

  /** Another worker could not reach it. */
  noteKnown(scope: HostScope): void {
    this.#outageOf(scope);
  }

  /** A connection was there. @returns true when that is the end of an outage, to be stored */
  noteReached(scope: HostScope): boolean {
    if (!this.#outages.delete(keyOf(scope))) return false;
    const { appId, provider, host } = scope;
    this.#log.info({ appId, provider, host }, 'a provider can be reached again');
    return true;
  }

  #outageOf(scope: HostScope): Outage {
    const key = keyOf(scope);
    let outage = this.#outages.get(key);
    if (outage === undefined) {
      const never = Number.NEGATIVE_INFINITY;
      outage = { since: new Date(), unsent: 0, writtenAt: never, loggedAt: never };
      this.#outages.set(key, outage);
    }
    return outage;
  }
}

function keyOf({ appId, provider, host, credential }: HostScope): string {
  return `${appId} ${provider} ${host} ${credential}`;
}
