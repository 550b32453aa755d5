import type { WorkerConfig } from '../../domain/config.ts';
import type { PushProvider } from '../../providers/provider.ts';
import type { Pending, PendingDevice } from './pending.ts';
import type { Run } from './run.ts';

/** Requests under way to a host until the first device was accepted: a wrong key or topic must not meet a whole window. */
export const unprovenInFlight = 5;
/** A run that has others to send to does not come back to a host sooner. */
const shortestBlockMs = 1_000;
const never = Number.NEGATIVE_INFINITY;

/** One host of the provider, as one run over a batch sees it. */
export interface RunHost {
  readonly name: string;
  /** Requests under way. */
  inFlight: number;
  /** Since the run began, and since it was last blocked. */
  hasAnswered: boolean;
  /** A device was taken: the configuration works. */
  isProven: boolean;
  /** Milliseconds on the monotonic clock: when it may be tried again, by another run if by no other; … */
  freeAt: number;
  /** … and by this one, which has others to send to. */
  blockedUntil: number;
  reason: string;
  /** This run tries whether it can be reached again, and keeps all others away meanwhile. */
  isTried: boolean;
  /** Reserved devices that wait for the first answers, while those of other hosts are sent to. */
  waiting: PendingDevice[];
}

/** The hosts that the devices of a batch are sent to: one may be blocked, silent or away while another takes everything. */
export class RunHosts {
  readonly #provider: PushProvider;
  readonly #config: WorkerConfig;
  readonly #pending: Pending;
  readonly #hosts: ReadonlyMap<string, RunHost>;
  readonly #onBlock: () => void;

  /** `onBlock`: devices that wait for room at a host need not wait any longer. */
  constructor({ provider, config, pending }: Run, onBlock: () => void) {
    this.#provider = provider;
    this.#config = config;
    this.#pending = pending;
    this.#onBlock = onBlock;
    const free = { inFlight: 0, hasAnswered: false, isProven: false, isTried: false };
    const unblocked = { freeAt: never, blockedUntil: never, reason: '' };
    this.#hosts = new Map(provider.hosts.map((name) => [name, { ...free, ...unblocked, name, waiting: [] }]));
  }

  get areMany(): boolean {
    return this.#hosts.size > 1;
  }

  get all(): Iterable<RunHost> {
    return this.#hosts.values();
  }

  /** Undefined: a device without an address, which nothing is sent to. */
  of({ address }: Pick<PendingDevice, 'address'>): RunHost | undefined {
    return address && this.named(this.#provider.hostOf(address));
  }

  named(name: string): RunHost | undefined {
    return this.#hosts.get(name);
  }

  /** The hosts of these devices. */
  namesOf(devices: PendingDevice[]): string[] {
    const names = new Set<string>();
    for (const device of devices) {
      const host = this.of(device);
      if (host) names.add(host.name);
    }
    return [...names];
  }

  isBlocked(host: RunHost): boolean {
    // Asked for every device, mostly of a host that was never blocked: that needs no look at the clock.
    return host.blockedUntil !== never && host.blockedUntil > performance.now();
  }

  msUntilFree({ freeAt }: RunHost): number {
    return Math.max(0, freeAt - performance.now());
  }

  /** A blocked host has room for all of its devices: they are set aside. */
  hasRoom(host: RunHost): boolean {
    return host.inFlight < this.#limitOf(host) || this.isBlocked(host);
  }

  #limitOf(host: RunHost): number {
    if (!host.isProven || !host.hasAnswered) return unprovenInFlight;
    return Math.min(this.#config.maxInFlight, this.#provider.usefulRequests(host.name));
  }

  /** A host that has not answered yet must not keep devices of another one waiting: its own step aside, reserved. */
  letOthersPass(host: RunHost, devices: PendingDevice[], at: number): boolean {
    if (!this.areMany || host.hasAnswered || host.waiting.length >= this.#config.windowSize) return false;
    const isElsewhere = (other: PendingDevice) => other.address !== undefined && this.of(other) !== host;
    const isAnyNext = devices.some((other, i) => i > at && isElsewhere(other));
    if (!isAnyNext && !this.#pending.isAnyAhead(isElsewhere)) return false;
    host.waiting.push(devices[at]!);
    return true;
  }

  /** @returns true when it was not blocked before */
  block(host: RunHost, waitMs: number, reason: string): boolean {
    const wasBlocked = this.isBlocked(host);
    const now = performance.now();
    if (now + waitMs > host.freeAt) {
      host.freeAt = now + waitMs;
      host.blockedUntil = now + Math.max(waitMs, shortestBlockMs);
      host.reason = reason;
    }
    host.hasAnswered = false;
    host.isTried = false;
    this.#onBlock();
    return !wasBlocked;
  }

  /** The blocked host that is free again first; undefined: none is blocked. */
  get firstBlocked(): RunHost | undefined {
    let first: RunHost | undefined;
    for (const host of this.#hosts.values()) {
      if (this.isBlocked(host) && (first === undefined || host.freeAt < first.freeAt)) first = host;
    }
    return first;
  }

  /** Whether devices of one of these environments are sent to by a host that is not blocked. */
  isAnyFree(environments: Parameters<PushProvider['hostOf']>[0]['apnsEnvironment'][]): boolean {
    return environments.some((apnsEnvironment) => {
      const host = this.named(this.#provider.hostOf({ apnsEnvironment }));
      return host !== undefined && !this.isBlocked(host);
    });
  }

  get areAllBlocked(): boolean {
    return [...this.#hosts.values()].every((host) => this.isBlocked(host));
  }
}
