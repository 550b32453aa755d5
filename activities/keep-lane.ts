import { Context } from '@temporalio/activity';
import { isRefusedByDatabase } from '../db/database-error.ts';
import { listEndedByThisOfAnyApp } from '../db/ended-entries.ts';
import {
  claimLane,
  expireEntries,
  findLaneOfAnyApp,
  haltLane,
  type Lane,
  type LaneClaim,
  leaveLane,
} from '../db/lanes.ts';
import { countWaitingOfAnyApp } from '../db/message-counts.ts';
import { retryDatabase } from '../db/retry-database.ts';
import { exhausted } from '../domain/exhausted.ts';
import type { KeepLaneInput, KeepLaneResult, LaneStatus } from '../domain/lane.ts';
import { countRecorded, countWait, halts } from '../telemetry/delivery-metrics.ts';
import type { ActivityDeps } from './activities.ts';
import { appNameOf } from './app-names.ts';
import { blame, type ProviderLease } from './app-providers.ts';
import { DatabaseClock } from './delivery/database-clock.ts';
import { LaneBooks } from './delivery/lane-books.ts';
import { LaneEntries } from './delivery/lane-entries.ts';
import { type Halt, type SendEnd, waitCauseOf } from './delivery/run-end.ts';
import { Sender } from './delivery/sender.ts';
import { startGrace } from './delivery/shutdown-grace.ts';
import type { Slot } from './delivery/slot.ts';
import { whileBeating } from './while-beating.ts';

/** A worker leaves its lane after so long, so that lanes spread over the workers there are, … */
const keptMs = 30 * 60_000;
/** … and a lane is tried again so long after it was halted, with a handful of entries. */
const haltMs = 30_000;
/** Looks at a lane that is halted, or does not open yet. */
const lookMs = 1_000;
/** A lane that nothing came to for so long is left: the next message wakes it, a few hundred milliseconds later than the ones after it. */
const usualIdleMs = 5 * 60_000;
/** Where a worker has more than so many, a tenth of that: each costs Temporal a heartbeat that it stores, every two seconds. */
const manyLanes = 20;
/** How often that is looked at, in that time. */
const idleLooks = 30;
/** The longest wait for a host before the books are asked again. */
const maxWaitMs = 5_000;
/** Over which the rate is shown. */
const rateMs = 5_000;

/**
 * Sends what is in a lane and what comes, until the worker stops or its time is over. Keyed by the lane's fence: a second call takes the
 * lane over, and the first writes nothing more.
 */
export function keepLane(deps: ActivityDeps, { laneId }: KeepLaneInput): Promise<KeepLaneResult> {
  const { attempt } = Context.current().info;
  let keeper: LaneKeeper | undefined;
  return whileBeating(
    (stop) => {
      keeper = new LaneKeeper(deps, laneId, stop, attempt);
      return keeper.keep();
    },
    () => keeper?.status(),
  );
}

/** One call of `keepLane`: one run over the lane after the other. */
class LaneKeeper {
  readonly #deps: ActivityDeps;
  readonly #laneId: number;
  readonly #shutdown: AbortSignal;
  /** Shut down, its time is over, or nothing comes. */
  readonly #stop: AbortSignal;
  readonly #idle = new AbortController();
  readonly #names: object;
  readonly #progress = { dispatched: 0, answered: 0 };
  /** The latest one. */
  #claim: LaneClaim | undefined;
  #entries: LaneEntries | undefined;
  #waiting = 0;
  #stopped: string | undefined;
  #shown = { at: performance.now(), answered: 0, perSecond: 0 };
  #onRing: (() => void) | undefined;

  constructor(deps: ActivityDeps, laneId: number, shutdown: AbortSignal, attempt: number) {
    this.#deps = deps;
    this.#laneId = laneId;
    this.#shutdown = shutdown;
    this.#stop = AbortSignal.any([shutdown, AbortSignal.timeout(keptMs), this.#idle.signal]);
    this.#names = { laneId, attempt };
  }

  status(): LaneStatus {
    const now = performance.now();
    const { answered } = this.#progress;
    if (now - this.#shown.at >= rateMs) {
      const perSecond = Math.round(((answered - this.#shown.answered) * 1000) / (now - this.#shown.at));
      this.#shown = { at: now, answered, perSecond };
    }
    const { perSecond } = this.#shown;
    const waiting = this.#waiting;
    const silent = waiting > 0 && perSecond === 0 ? 'no answers lately' : undefined;
    const stopped = this.#stopped ?? silent;
    return { perSecond, waiting, deferred: this.#entries?.deferred ?? 0, ...(stopped !== undefined && { stopped }) };
  }

  /** What waits, also while nothing is read. */
  async #count(): Promise<void> {
    const { db, log } = this.#deps;
    try {
      this.#waiting = await countWaitingOfAnyApp(db, this.#laneId);
    } catch (err) {
      log.debug({ ...this.#names, err }, 'what waits in a lane could not be counted');
    }
  }

  async keep(): Promise<KeepLaneResult> {
    const { log, config, bell } = this.#deps;
    const { giveUp, release } = startGrace(this.#stop, config.shutdownGraceMs);
    const silence = bell.onRing(this.#laneId, () => {
      this.#entries?.ring();
      this.#onRing?.();
    });
    const { laneIdleMs = usualIdleMs } = this.#deps;
    const looks = setInterval(this.#idleLook(laneIdleMs), laneIdleMs / idleLooks);
    const counts = setInterval(() => void this.#count(), rateMs);
    try {
      while (!this.#stop.aborted) {
        const left = await this.#runOnce(giveUp);
        if (left === undefined) continue;
        log.info(this.#names, `lane ${left}`);
        return { reason: left };
      }
      if (this.#shutdown.aborted) return { reason: 'worker shut down' };
      return { reason: this.#idle.signal.aborted && (await this.#leave()) ? 'idle' : 'time is over' };
    } finally {
      clearInterval(looks);
      clearInterval(counts);
      silence();
      release();
    }
  }

  /** To be called now and then: gives the lane up once nothing was sent and nothing waited for long. */
  #idleLook(idleMs: number): () => void {
    let busyAt = performance.now();
    let { dispatched } = this.#progress;
    return () => {
      const isBusy = this.#progress.dispatched !== dispatched || (this.#entries?.waiting ?? 0) > 0;
      ({ dispatched } = this.#progress);
      if (isBusy) busyAt = performance.now();
      else {
        const patienceMs = this.#deps.bell.lanes > manyLanes ? idleMs / 10 : idleMs;
        if (performance.now() - busyAt >= patienceMs) this.#idle.abort();
      }
    };
  }

  /** @returns false when there is something in it after all */
  async #leave(): Promise<boolean> {
    const claim = this.#claim;
    if (claim === undefined) return false;
    const settled = this.#entries?.settled ?? claim.settled;
    return retryDatabase(() => leaveLane(this.#deps.db, claim, settled), this.#shutdown);
  }

  async #runOnce(giveUp: AbortSignal): Promise<'claimed by another' | 'gone' | undefined> {
    const deps = this.#deps;
    const lane = await retryDatabase(() => findLaneOfAnyApp(deps.db, this.#laneId), this.#stop);
    if (lane === undefined) return 'gone';
    const claim = await retryDatabase(() => claimLane(deps.db, this.#laneId, this.#claim?.fence), this.#stop);
    // It was frozen, say: another worker has the lane, and keeps it.
    if (claim === undefined && this.#claim !== undefined) return 'claimed by another';
    if (claim === undefined) {
      this.#stopped = 'opens when another lane has sent what it had';
      return this.#wait(lookMs);
    }
    this.#claim = claim;
    const lease = await retryDatabase(() => deps.providers.lease(lane.appId, lane.provider), this.#stop);
    if ('fault' in lease) {
      if (!lane.hasEntries) return this.#wait(maxWaitMs);
      return this.#halt(claim, lane, { reason: 'credentials', detail: lease.fault });
    }
    this.#stopped = undefined;
    const stop = AbortSignal.any([this.#stop, lease.replaced]);
    const end = await this.#send(lane, claim, lease, { stop, giveUp }).finally(lease.release);
    if (end.kind === 'halt') end.halt = await blame(deps.db, lease, end.halt);
    return this.#goOn(lane, claim, end);
  }

  async #goOn(lane: Lane, claim: LaneClaim, end: SendEnd): Promise<'claimed by another' | undefined> {
    switch (end.kind) {
      case 'shutdown':
      case 'noneDue':
        return undefined;
      case 'stopped':
        return 'claimed by another';
      case 'wait':
      case 'partAtFault':
        this.#stopped = end.kind === 'wait' ? end.reason : end.halt.reason;
        return this.#waitAfter(lane, end);
      case 'halt':
        return this.#halt(claim, lane, end.halt);
      case 'failed':
        if (!isRefusedByDatabase(end.error)) throw end.error;
        return this.#halt(claim, lane, {
          reason: 'books',
          detail: `PostgreSQL refuses to record outcomes: ${end.error.message}`,
        });
      case 'expired':
      case 'askElsewhere':
        throw new Error(`a lane ended as ${end.kind}`);
      default:
        return exhausted(end);
    }
  }

  async #waitAfter({ provider }: Lane, end: SendEnd & { kind: 'wait' | 'partAtFault' }): Promise<undefined> {
    const waitMs = Math.min(maxWaitMs, end.kind === 'wait' ? end.waitMs : maxWaitMs);
    const startedAt = performance.now();
    await this.#wait(waitMs);
    countWait(provider, waitCauseOf(end)!, performance.now() - startedAt);
  }

  async #send(
    lane: Lane,
    claim: LaneClaim,
    { provider }: ProviderLease,
    signals: { stop: AbortSignal; giveUp: AbortSignal },
  ): Promise<SendEnd> {
    const deps = this.#deps;
    const load = () => LaneEntries.load({ ...deps, claim, provider, clock: new DatabaseClock() });
    const entries = await retryDatabase(load, this.#stop);
    const app = await retryDatabase(() => appNameOf(deps.db, lane.appId), this.#stop);
    this.#entries = entries;
    const sender = new Sender({
      ...deps,
      ...{ appId: lane.appId, app, provider, pending: entries, progress: this.#progress, ...signals },
      books: new LaneBooks(deps, claim, entries),
      slot: laneSlot((waitMs, reason) => this.#waitFor(reason, Math.min(waitMs, maxWaitMs))),
      ...{ acceptedBefore: 0, suspectsBefore: 0, random: deps.random ?? Math.random },
    });
    const end = await sender.run();
    if (sender.inFlight > 0)
      deps.log.warn({ ...this.#names, inFlight: sender.inFlight }, 'left answers behind: in doubt');
    if (end.kind === 'failed') deps.log.error({ ...this.#names, err: end.error }, 'lane failed');
    return end;
  }

  /** What is in the lane waits, but for what gets too old, until it is tried again or somebody says that the fault is mended. */
  async #halt(claim: LaneClaim, lane: Lane, halt: Halt): Promise<undefined> {
    const { db, log } = this.#deps;
    const since = (lane.halt?.since ?? new Date()).toISOString();
    this.#stopped = `${halt.reason} since ${since}, tried every ${haltMs / 1000} s: ${halt.detail}`;
    if (lane.halt?.detail !== halt.detail) {
      const { appId, provider, number } = lane;
      halts.inc({ of: 'lane', reason: halt.reason });
      log.error({ ...this.#names, appId, provider, lane: number, ...halt }, 'lane halted');
    }
    await retryDatabase(() => haltLane(db, claim, halt), this.#stop);
    const until = performance.now() + haltMs;
    while (!this.#stop.aborted && performance.now() < until) {
      const expired = await retryDatabase(() => this.#expire(claim, lane), this.#stop);
      if (expired > 0) log.info({ ...this.#names, expired }, 'messages expired in a halted lane');
      await this.#wait(lookMs);
      const now = await retryDatabase(() => findLaneOfAnyApp(db, this.#laneId), this.#stop);
      if (now?.halt == null) return undefined;
    }
    return undefined;
  }

  async #expire(claim: LaneClaim, { appId, provider }: Lane): Promise<number> {
    const { db } = this.#deps;
    const app = await appNameOf(db, appId);
    const { expired, ended } = await db.transaction().execute(async (trx) => {
      const expired = await expireEntries(trx, claim);
      return { expired, ended: expired > 0 ? await listEndedByThisOfAnyApp(trx, claim) : [] };
    });
    for (const { devices, ...end } of ended) countRecorded({ app, provider }, end, devices);
    return expired;
  }

  async #waitFor(reason: string, ms: number): Promise<void> {
    this.#stopped = reason;
    await this.#wait(ms);
    this.#stopped = undefined;
  }

  /** Until the time is over, the worker stops, or the bell rings. */
  #wait(ms: number): Promise<undefined> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#stop.removeEventListener('abort', end);
        this.#onRing = undefined;
        resolve(undefined);
      };
      const timer = setTimeout(end, ms);
      this.#stop.addEventListener('abort', end);
      this.#onRing = end;
      if (this.#stop.aborted) end();
    });
  }
}

/** A lane has a place of its own: it waits there. */
function laneSlot(wait: Slot['waitHere']): Slot {
  return {
    mayWaitForQuota: () => true,
    // Further entries come, and are not kept waiting.
    mayWaitForDeferred: () => false,
    waitHere: wait,
    leaveInSilence() {},
    noteAnswer() {},
    takeBack() {},
  };
}
