import type { Address } from '../../db/device-addresses.ts';
import { Breaker } from './breaker.ts';
import type { Cause } from './decide.ts';
import type { ProviderHealth } from './overload-watch.ts';
import { isSamePart } from './pending-devices.ts';
import type { Run } from './run.ts';
import type { Halt } from './run-end.ts';
import type { RunHost, RunHosts } from './run-hosts.ts';

/** Devices of the batch that stand or fall together: one platform and environment, sent to with one configuration. */
export interface Part extends Pick<Address, 'platform' | 'apnsEnvironment'> {
  configuration: string;
  host: RunHost;
  breaker: Breaker;
  health: ProviderHealth;
  /** Its devices wait while the others are sent to: the halt that follows when no other is left, and the answer that told. */
  fault: (Required<Cause> & { halt: Halt }) | undefined;
}

/** The parts of a batch, as far as one run has met them. */
export class RunParts {
  readonly #run: Run;
  readonly #hosts: RunHosts;
  readonly #parts: Part[] = [];

  constructor(run: Run, hosts: RunHosts) {
    this.#run = run;
    this.#hosts = hosts;
  }

  get all(): Iterable<Part> {
    return this.#parts;
  }

  get firstFault(): Part['fault'] {
    return this.#parts.find((part) => part.fault !== undefined)?.fault;
  }

  of(address: Address): Part {
    for (const part of this.#parts) if (isSamePart(part, address)) return part;
    const { platform, apnsEnvironment } = address;
    const { appId, claim, provider, prepared, overload, pending } = this.#run;
    const host = this.#hosts.of({ address })!;
    const configuration = [claim.provider, platform, host.name, prepared.target, provider.credential].join(' ');
    const breaker = new Breaker();
    if (pending.isAskingElsewhere) breaker.askElsewhere(this.#run.suspectsBefore);
    const health = overload.of(`${appId} ${claim.provider} ${host.name} ${provider.credential}`);
    const part: Part = { platform, apnsEnvironment, configuration, host, breaker, health, fault: undefined };
    this.#parts.push(part);
    return part;
  }

  /** False: the audience seems to be of this part alone, and a handful of refusals must be the end of it. */
  canGoOnWithout(part: Part): boolean {
    const isOtherProven = this.#parts.some((other) => other !== part && other.breaker.isProven);
    return isOtherProven || this.#run.pending.hasOtherThan(part);
  }
}
