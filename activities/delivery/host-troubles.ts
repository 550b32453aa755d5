import {
  blockHost,
  type HostScope,
  type HostTrouble,
  leaveTry,
  noteReachable,
  noteUnreachable,
} from '../../db/provider-hosts.ts';
import { retryDatabase } from '../../db/retry-database.ts';
import type { UnsentVerdict } from '../../providers/provider.ts';
import type { Decision } from './decide.ts';
import type { Run } from './run.ts';
import type { RunBooks } from './run-books.ts';
import { type RunEnd, rateLimit, type SendEnd } from './run-end.ts';
import type { RunHost, RunHosts } from './run-hosts.ts';
import type { Part } from './run-parts.ts';

/** Hosts that are blocked, fail or cannot be reached: what one run does about them, tells other workers and learns from them. */
export class HostTroubles {
  readonly #run: Run;
  readonly #end: RunEnd;
  readonly #hosts: RunHosts;
  readonly #books: RunBooks;
  /** A host was blocked since `isAlone` was last asked. */
  #mayBeAlone = false;
  readonly #blockWrittenUntil = new Map<RunHost, number>();
  #troubleStored: Promise<void> = Promise.resolve();

  constructor(given: { run: Run; end: RunEnd; hosts: RunHosts; books: RunBooks }) {
    this.#run = given.run;
    this.#end = given.end;
    this.#hosts = given.hosts;
    this.#books = given.books;
  }

  /** No connection to be had. @returns milliseconds until the host may be tried again */
  noteUnsent(host: RunHost, { reason, afterMs }: UnsentVerdict): number {
    const { db, providerHosts } = this.#run;
    const scope = this.#scopeOf(host);
    // One that takes no more at the moment has answered before.
    const isUnreachable = !host.hasAnswered || reason.startsWith('connect_failed');
    if (isUnreachable && providerHosts.noteUnsent(scope, reason, afterMs)) {
      this.#storeTrouble(() => noteUnreachable(db, scope, reason, afterMs));
    }
    this.#block(host, afterMs, reason);
    return this.#hosts.msUntilFree(host);
  }

  /** Every worker of this app waits, as far as it sends to this host with this credential. */
  holdBackAll({ host, health }: Part, decision: Decision): void {
    const { retryBaseMs, retryMaxMs } = this.#run.config;
    const { isFailing } = health;
    // Once a run: the other answers under way say the same.
    const isNew = isFailing && !this.#hosts.isBlocked(host);
    const outageMs = isNew ? Math.min(retryMaxMs, health.outageWaitMs(retryBaseMs)) : 0;
    const waitMs = Math.max(outageMs, decision.kind === 'defer' ? decision.waitMs : 0);
    const until = performance.now() + waitMs;
    this.#block(host, waitMs, isFailing ? 'provider fails' : rateLimit);
    // One write for each answer would be too many: only a later end is written.
    if (until <= (this.#blockWrittenUntil.get(host) ?? Number.NEGATIVE_INFINITY) + 1_000) return;
    this.#blockWrittenUntil.set(host, until);
    this.#storeTrouble(() => blockHost(this.#run.db, this.#scopeOf(host), waitMs));
  }

  /**
   * Nothing more goes to this host. Where it is the only one, the run stops at once: the rest of the window is reserved already,
   * and would meet the same refusal. Otherwise its devices are set aside, and the others are sent to.
   */
  #block(host: RunHost, waitMs: number, reason: string): void {
    if (this.#hosts.block(host, waitMs, reason)) this.#mayBeAlone = true;
    this.#setWaitingAside(host);
    if (this.#hosts.areAllBlocked) this.#end.stopFor(this.#waitFor(this.#hosts.firstBlocked!));
  }

  #setWaitingAside(host: RunHost): void {
    const cause = { reason: host.reason || 'held back' };
    for (const device of host.waiting.splice(0)) this.#books.postpone(device, this.#hosts.msUntilFree(host), cause);
  }

  #waitFor(host: RunHost): SendEnd {
    const { name, reason } = host;
    const isOneOfMany = this.#hosts.areMany && !this.#hosts.areAllBlocked;
    return { kind: 'wait', waitMs: this.#hosts.msUntilFree(host), reason, ...(isOneOfMany && { host: name }) };
  }

  /** What other workers have found out. */
  learn({ host: name, waitMs, reason, isUnreachable, isLetThrough }: HostTrouble): void {
    const host = this.#hosts.named(name);
    if (host === undefined) return;
    if (isUnreachable) this.#run.providerHosts.noteKnown(this.#scopeOf(host));
    host.isTried ||= isLetThrough;
    if (waitMs > 0 && !(isUnreachable && host.isTried)) this.#block(host, waitMs, reason);
  }

  /** A request was written to it at least. */
  noteReached(host: RunHost, hasAnswered: boolean): void {
    host.hasAnswered ||= hasAnswered;
    if (!this.#run.providerHosts.isAnyAway) return;
    const scope = this.#scopeOf(host);
    if (this.#run.providerHosts.noteReached(scope)) this.#storeTrouble(() => noteReachable(this.#run.db, scope));
  }

  /** As `isAlone`; asks the books only where a host was blocked since the last look. */
  async hasBecomeAlone(): Promise<boolean> {
    return this.#mayBeAlone && (await this.isAlone());
  }

  /** Whether all devices left belong to hosts that are blocked: then the run ends, instead of setting them aside one by one. */
  async isAlone(): Promise<boolean> {
    this.#mayBeAlone = false;
    const blocked = this.#hosts.firstBlocked;
    if (blocked === undefined || this.#end.why !== undefined) return this.#end.why !== undefined;
    const { books, giveUp } = this.#run;
    if (this.#hosts.isAnyFree(await retryDatabase(() => books.listOpenEnvironments(), giveUp))) return false;
    this.#end.stopFor(this.#waitFor(blocked));
    return true;
  }

  #scopeOf({ name }: RunHost): HostScope {
    const { appId, provider } = this.#run;
    return { appId, provider: provider.name, host: name, credential: provider.credential };
  }

  /** Without such a write other batches learn from refusals of their own: no reason to fail this one. */
  #storeTrouble(write: () => Promise<void>): void {
    this.#troubleStored = this.#troubleStored.then(() => retryDatabase(write, this.#run.giveUp)).catch(() => {});
  }

  /** At the end of the run: devices that wait for a host are set aside, and a try without an answer is left to another run. */
  async leave(): Promise<void> {
    for (const host of this.#hosts.all) {
      this.#setWaitingAside(host);
      if (host.isTried && !host.hasAnswered) this.#storeTrouble(() => leaveTry(this.#run.db, this.#scopeOf(host)));
    }
    await this.#troubleStored;
  }
}
