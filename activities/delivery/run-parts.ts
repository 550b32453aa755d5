import type { Address } from '../../db/device-addresses.ts';
import type { PreparedMessage } from '../../providers/provider.ts';
import { Breaker } from './breaker.ts';
import type { Cause } from './decide.ts';
import type { ProviderHealth } from './overload-watch.ts';
import { isSamePart } from './pending.ts';
import type { Run } from './run.ts';
import type { Halt } from './run-end.ts';
import type { RunHost, RunHosts } from './run-hosts.ts';

/** Devices of the batch that stand or fall together: one platform and environment, sent to with one configuration. */
export interface Part extends Pick<Address, 'platform' | 'apnsEnvironment'> {
  /** APNs topic or Firebase project. */
  target: string;
  configuration: string;
  host: RunHost;
  breaker: Breaker;
  health: ProviderHealth;
  /** Its devices wait while the others are sent to. */
  fault: PartFault | undefined;
}

/** The halt that follows when no other part is left, and the answer that told. */
interface PartFault extends Required<Cause> {
  halt: Halt;
  /** By the monotonic clock: in a lane the part is tried again then. */
  until: number;
}

/** How long a part of a lane is left alone. */
const partWaitMs = 30_000;

/** The parts of a batch or lane, as far as one run has met them. */
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

  of(address: Address, { target }: PreparedMessage): Part {
    for (const part of this.#parts) if (part.target === target && isSamePart(part, address)) return part;
    const { platform, apnsEnvironment } = address;
    const { appId, provider, overload, pending } = this.#run;
    const host = this.#hosts.of({ address })!;
    const configuration = [provider.name, platform, host.name, target, provider.credential].join(' ');
    const breaker = new Breaker();
    if (pending.isAskingElsewhere) breaker.askElsewhere(this.#run.suspectsBefore);
    const health = overload.of(`${appId} ${provider.name} ${host.name} ${provider.credential}`);
    const part: Part = { platform, apnsEnvironment, target, configuration, host, breaker, health, fault: undefined };
    this.#parts.push(part);
    return part;
  }

  setAside(part: Part, fault: Omit<PartFault, 'until'>): void {
    const until = this.#run.pending.isEndless ? performance.now() + partWaitMs : Number.POSITIVE_INFINITY;
    part.fault = { ...fault, until };
  }

  /** Milliseconds for which a device of this part waits, in a lane; undefined: it is sent to. */
  msAside(part: Part): number | undefined {
    const { fault } = part;
    if (fault === undefined) return undefined;
    if (fault.until === Number.POSITIVE_INFINITY) return 0;
    const waitMs = fault.until - performance.now();
    if (waitMs > 0) return waitMs;
    part.fault = undefined;
    part.breaker = new Breaker();
    part.host.isProven = false;
    return undefined;
  }

  /** False: the audience seems to be of this part alone, and a handful of refusals must be the end of it. */
  canGoOnWithout(part: Part): boolean {
    const isOtherProven = this.#parts.some((other) => other !== part && other.breaker.isProven);
    return isOtherProven || this.#run.pending.hasOtherThan(part);
  }
}
