import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Claim, type Reservation, reserveWindow, returnReserved } from '../../db/batches.ts';
import { cleanReason, type DeliveryRecord, type Retirement } from '../../db/deliveries.ts';
import { listOpenEnvironments } from '../../db/device-addresses.ts';
import {
  blockHost,
  type HostScope,
  type HostTrouble,
  leaveTry,
  noteReachable,
  noteUnreachable,
} from '../../db/provider-hosts.ts';
import { providerScope } from '../../db/rate-limits.ts';
import { pause, retryDatabase } from '../../db/retry-database.ts';
import type { Database } from '../../db/schema.ts';
import type { WorkerConfig } from '../../domain/config.ts';
import type { Platform } from '../../domain/device.ts';
import type { HaltReason, InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import { retryDelayMs } from '../../domain/retry-policy.ts';
import type { MisconfiguredVerdict, PreparedMessage, PushProvider, Verdict } from '../providers/provider.ts';
import type { SendingSlots } from '../sending-slots.ts';
import { type BatchHost, BatchHosts } from './batch-hosts.ts';
import { Breaker, type Judgement } from './breaker.ts';
import type { OverloadWatch } from './overload-watch.ts';
import type { PendingDevice, PendingDevices } from './pending-devices.ts';
import type { ProviderHosts } from './provider-hosts.ts';
import { Recorder } from './recorder.ts';

/** Requests under way to a host until the first device was accepted: a wrong key or topic must not meet a whole window. */
const unprovenInFlight = 5;
/** A window holds about so much sending, so that a crash leaves few devices in doubt. */
const windowMs = 100;
const smallestWindow = 20;
/** A rate limit that frees this soon is waited for here, a longer one on a durable timer, … */
const maxWaitHereMs = 2_000;
/** … and one of many short waits that have to be sat out in a slot, … */
const maxWaitInSlotMs = 500;
/** … or that have gone on for so long, well before Temporal's time for one activity is over. */
const maxWaitedHereMs = 3_600_000;

/** Nobody answered between two looks so far apart: a run with no more than a handful under way leaves its slot until somebody does. */
const silenceMs = 500;

/** Why a run of the sender ended. */
export type SendEnd =
  /** `blockedMs`: some wait so long for their host. */
  | { kind: 'exhausted'; blockedMs?: number }
  /** With a `host`: everybody left is sent to by that one, and others of the provider's are not blocked. */
  | { kind: 'wait'; waitMs: number; reason: string; host?: string }
  | { kind: 'stopped'; reason: 'paused' | 'halted' | 'cancelled' | 'fenced' }
  | { kind: 'expired' }
  | { kind: 'misconfigured'; fault: HaltReason; detail: string }
  /** All but one platform were sent to: a configuration fault of that platform keeps its devices waiting. */
  | { kind: 'held'; fault: HaltReason; detail: string }
  | { kind: 'shutdown' }
  | { kind: 'failed'; error: unknown };

export interface BatchSenderOptions {
  db: Kysely<Database>;
  pool: pg.Pool;
  claim: Claim;
  appId: number;
  expiresAt: Date | null;
  inDoubtPolicy: InDoubtPolicy;
  /** Whether anybody of the notification was accepted before. */
  hasAccepted: boolean;
  provider: PushProvider;
  prepared: PreparedMessage;
  pending: PendingDevices;
  overload: OverloadWatch;
  providerHosts: ProviderHosts;
  slots: SendingSlots;
  config: WorkerConfig;
  random: () => number;
  /** Aborted: dispatch nothing more; what is under way is waited for and recorded. */
  stop: AbortSignal;
  /** Aborted: answers and PostgreSQL are no longer waited for either. */
  giveUp: AbortSignal;
}

interface Window {
  devices: PendingDevice[];
}

/**
 * Sends one claimed batch: reserves a window in the books, dispatches it while the next one is being reserved, and turns
 * every verdict into an outcome, a deferral or the end of the send.
 */
export class BatchSender {
  readonly #o: BatchSenderOptions;
  readonly #recorder: Recorder;
  readonly #breaker = new Breaker();
  readonly #scope: string;
  #end: SendEnd | undefined;
  #inFlight = 0;
  #wakeDispatcher: (() => void) | undefined;
  #onDrained: (() => void) | undefined;
  #windowSize = smallestWindow;
  /** The earliest fresh device that was reserved and not dispatched; with the deferred ones it is given back at the end. */
  #undispatched: { position: number | undefined; deferredIds: number[] } = { position: undefined, deferredIds: [] };
  /** Platforms that cannot be sent to, and why. */
  readonly #held = new Map<Platform, MisconfiguredVerdict>();
  readonly #hosts: BatchHosts;
  /** A host is blocked of late: is there anybody whom another one sends to? */
  #mayBeAlone = false;
  readonly #blockWrittenUntil = new Map<BatchHost, number>();
  #waitedMs = 0;
  /** Takes the slot back that the run has left. */
  #takeSlot: (() => void) | undefined;
  #isWaitingForQuota = false;
  #answeredAtLook = -1;
  #troubleStored: Promise<void> = Promise.resolve();
  dispatched = 0;
  answered = 0;
  /** Devices that wait because of their platform or host. */
  devicesSetAside = 0;

  constructor(options: BatchSenderOptions) {
    this.#o = options;
    this.#scope = providerScope(options.appId, options.claim.provider);
    this.#hosts = new BatchHosts(options.provider);
    const { db, pool, claim, config, giveUp } = options;
    this.#recorder = new Recorder(db, pool, claim, config.windowSize, giveUp, (error) =>
      this.#stopFor(isFenced(error) ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error }),
    );
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get isFinished(): boolean {
    return this.#recorder.isFinished;
  }

  /** Sends until nothing can be sent now, or the send must stop. All that was answered is recorded when it returns. */
  async run(): Promise<SendEnd> {
    const onStop = () => this.#stopFor({ kind: 'shutdown' });
    if (this.#o.stop.aborted) onStop();
    this.#o.stop.addEventListener('abort', onStop);
    const looks = setInterval(() => this.#leaveSlotInSilence(), silenceMs);
    try {
      await this.#dispatchWindows();
    } catch (error) {
      this.#stopFor(isFenced(error) ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
    }
    await this.#answersInFlight();
    clearInterval(looks);
    this.#backInSlot();
    this.#judge(this.#breaker.finish());
    for (const host of this.#hosts.all) {
      this.#setWaitingAside(host);
      if (host.isTried && !host.hasAnswered) this.#storeTrouble(() => leaveTry(this.#o.db, this.#scopeOf(host)));
    }
    await this.#troubleStored;
    try {
      await this.#recorder.flush();
      await this.#giveBack();
    } catch (error) {
      this.#stopFor(isFenced(error) ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
    }
    this.#o.stop.removeEventListener('abort', onStop);
    const [held] = this.#held.values();
    if (this.#end !== undefined) return this.#end;
    if (held !== undefined) return { kind: 'held', fault: held.fault, detail: held.detail };
    const blocked = this.devicesSetAside > 0 ? this.#hosts.firstBlocked : undefined;
    if (blocked === undefined) return { kind: 'exhausted' };
    if (await this.#isAlone()) return this.#end!;
    return { kind: 'exhausted', blockedMs: blocked.freeAt - Date.now() };
  }

  async #dispatchWindows(): Promise<void> {
    let next = this.#nextWindow();
    for (;;) {
      const window = await next;
      if (window === undefined) return;
      const startedAt = performance.now();
      // Reserved while this one is being sent. A failure is met where it is awaited, not here.
      next = this.#nextWindow();
      next.catch(() => {});
      await this.#dispatch(window);
      this.#adaptWindow(window.devices.length, performance.now() - startedAt);
    }
  }

  /** Reserves the next window; undefined: nothing to send now, and `#end` says why when that is not plain exhaustion. */
  async #nextWindow(): Promise<Window | undefined> {
    const { pool, claim, config, pending, giveUp } = this.#o;
    while (this.#end === undefined) {
      if (this.#mayBeAlone && (await this.#isAlone())) return undefined;
      // So a crash leaves at most three windows in doubt (outcomes not written, the one being sent, the next), the requests under way,
      // and the answers that the breaker holds.
      await this.#recorder.room(config.windowSize);
      const devices = await retryDatabase(() => pending.peek(this.#windowSize), giveUp);
      if (devices.length === 0) return undefined;
      const hosts = this.#hosts.namesOf(devices);
      const { credential } = this.#o.provider;
      const positions: number[] = [];
      const deferredIds: number[] = [];
      for (const device of devices) {
        if (device.position === undefined) deferredIds.push(device.deviceId);
        else positions.push(device.position);
      }
      // A deferral must be in the books before its device is sent to again, or a crash would not know of the attempt.
      if (deferredIds.length > 0) await this.#recorder.flush();
      if (this.#end !== undefined) return undefined;
      const reservation = await retryDatabase(
        () => reserveWindow(pool, claim, { positions, deferredIds, providerScope: this.#scope, hosts, credential }),
        giveUp,
      );
      if (reservation.answer === 'go') {
        pending.take(reservation.granted);
        const granted = devices.slice(0, reservation.granted);
        for (const trouble of reservation.hosts) this.#learn(trouble);
        if (!this.#mayBeAlone || !(await this.#isAlone())) return { devices: granted };
        this.#noteUndispatched(granted, 0);
        return undefined;
      }
      await this.#holdBack(reservation);
    }
    return undefined;
  }

  async #holdBack(reservation: Exclude<Reservation, { answer: 'go' }>): Promise<void> {
    switch (reservation.answer) {
      case 'wait':
        await this.#waitForQuota(reservation.waitMs);
        return;
      case 'expired':
        this.#stopFor({ kind: 'expired' });
        return;
      default:
        this.#stopFor({ kind: 'stopped', reason: reservation.answer });
    }
  }

  /** Without a slot where there is a place for that; in it only for as long as an activity more would cost others. */
  async #waitForQuota(waitMs: number): Promise<void> {
    this.#waitedMs += waitMs;
    const { slots, claim, stop } = this.#o;
    const isLong = waitMs > maxWaitHereMs || this.#waitedMs > maxWaitedHereMs;
    if (!isLong) this.#takeSlot ??= slots.park(claim.notificationId);
    if (isLong || (this.#takeSlot === undefined && this.#waitedMs > maxWaitInSlotMs)) {
      this.#stopFor({ kind: 'wait', waitMs: Math.max(waitMs, maxWaitHereMs), reason: 'rate limit' });
      return;
    }
    this.#isWaitingForQuota = true;
    await pause(waitMs, stop);
    this.#isWaitingForQuota = false;
    this.#backInSlot();
  }

  /** A host that says nothing must not hold a slot either. */
  #leaveSlotInSilence(): void {
    const { slots, claim } = this.#o;
    const isSilent = this.answered === this.#answeredAtLook && this.#inFlight > 0;
    this.#answeredAtLook = this.answered;
    if (!isSilent || this.#inFlight > 2 * unprovenInFlight) return;
    this.#takeSlot ??= slots.park(`${claim.notificationId} ${claim.seq}`);
  }

  #backInSlot(): void {
    this.#takeSlot?.();
    this.#takeSlot = undefined;
  }

  async #dispatch(window: Window): Promise<void> {
    const { devices } = window;
    for (let i = 0; i < devices.length; i++) {
      const device = devices[i]!;
      const host = this.#hosts.of(device);
      let mayGo = host === undefined || this.#hasRoom(host);
      while (this.#end === undefined && !mayGo) {
        if (this.#letOthersPass(host!, devices, i)) break;
        await new Promise<void>((resolve) => {
          this.#wakeDispatcher = resolve;
        });
        mayGo = this.#hasRoom(host!);
      }
      if (this.#end !== undefined) {
        this.#noteUndispatched(devices, i);
        return;
      }
      if (mayGo) this.#send(device);
    }
  }

  /** What is blocked has room for everybody: they are set aside. */
  #hasRoom(host: BatchHost): boolean {
    const limit = this.#breaker.isProven && host.hasAnswered ? this.#o.config.maxInFlight : unprovenInFlight;
    return host.inFlight < limit || this.#hosts.isBlocked(host);
  }

  /** A host that has not answered yet must not keep those waiting whom another one sends to: the device steps aside, reserved. */
  #letOthersPass(host: BatchHost, devices: PendingDevice[], at: number): boolean {
    if (!this.#hosts.areMany || host.hasAnswered || host.waiting.length >= this.#o.config.windowSize) return false;
    const isElsewhere = (other: PendingDevice) => other.address !== undefined && this.#hosts.of(other) !== host;
    const isAnyNext = devices.some((other, i) => i > at && isElsewhere(other));
    if (!isAnyNext && !this.#o.pending.isAnyAhead(isElsewhere)) return false;
    host.waiting.push(devices[at]!);
    return true;
  }

  /** Half-way towards the number of devices that `windowMs` would have sent. */
  #adaptWindow(devices: number, elapsedMs: number): void {
    const fitting = (devices * windowMs) / Math.max(1, elapsedMs);
    const next = Math.round((this.#windowSize + fitting) / 2);
    this.#windowSize = Math.max(smallestWindow, Math.min(this.#o.config.windowSize, next));
  }

  #send(device: PendingDevice): void {
    if (device.address === undefined) {
      // Whoever is gone may still have got an earlier attempt.
      this.#record(device, device.isInDoubt ? 'unknown' : 'skipped', 'device_gone', null);
      return;
    }
    if (device.isInDoubt && (this.#o.inDoubtPolicy === 'skip' || device.doubts > this.#o.config.maxDoubts)) {
      this.#record(device, 'unknown', 'in_doubt', null);
      return;
    }
    if (this.#held.has(device.address.platform)) {
      this.#setAside(device);
      return;
    }
    const host = this.#hosts.of(device)!;
    if (this.#hosts.isBlocked(host)) {
      this.#postpone(device, host.freeAt, host.reason, null);
      return;
    }
    host.inFlight += 1;
    this.#inFlight += 1;
    this.dispatched += 1;
    const { provider, prepared } = this.#o;
    provider
      .send(prepared, {
        deviceId: device.deviceId,
        deviceToken: device.address.deviceToken,
        apnsEnvironment: device.address.apnsEnvironment,
      })
      .then(
        (verdict) => this.#settle(device, verdict),
        // `send` always resolves; should it break its word, the device is in doubt, and the batch goes on.
        (error: unknown) => this.#settle(device, { kind: 'unanswered', httpStatus: null, reason: String(error) }),
      );
  }

  #settle(device: PendingDevice, verdict: Verdict): void {
    const host = this.#hosts.of(device)!;
    host.inFlight -= 1;
    this.#inFlight -= 1;
    this.answered += 1;
    if (!this.#isWaitingForQuota) this.#backInSlot();
    if (verdict.kind !== 'unsent') this.#noteReached(host, verdict.kind !== 'unanswered');
    this.#apply(device, verdict);
    while (this.#end === undefined && host.waiting.length > 0 && this.#hasRoom(host)) this.#send(host.waiting.shift()!);
    if (this.#inFlight === 0) this.#onDrained?.();
    if (this.#wakeDispatcher !== undefined && (this.#end !== undefined || this.#hasRoom(host))) {
      const wake = this.#wakeDispatcher;
      this.#wakeDispatcher = undefined;
      wake();
    }
  }

  #apply(device: PendingDevice, verdict: Verdict): void {
    const isRefusal = verdict.kind === 'later' && verdict.scope === 'provider';
    const isOverload = this.#o.overload.note(this.#scope, isRefusal);
    switch (verdict.kind) {
      case 'accepted':
        this.#record(device, 'accepted', null, verdict.httpStatus, 1, verdict.providerMessageId);
        this.#judge(this.#breaker.noteAnswer(true));
        return;
      case 'unregistered':
        if (verdict.isSuspicious) {
          this.#judge(this.#breaker.noteSuspicious(device, verdict));
          return;
        }
        this.#recordUnregistered(device, verdict);
        this.#judge(this.#breaker.noteAnswer(true));
        return;
      case 'rejected':
        if (verdict.isPayloadFault) {
          this.#judge(this.#breaker.notePayloadFault(device, verdict));
          return;
        }
        this.#record(device, 'rejected', verdict.reason, verdict.httpStatus, 1);
        this.#judge(this.#breaker.noteAnswer(false));
        return;
      case 'later':
        this.#later(device, verdict, isOverload);
        this.#judge(this.#breaker.noteAnswer(false));
        return;
      case 'unanswered':
        this.#unanswered(device, verdict.reason, verdict.httpStatus);
        return;
      case 'unsent':
        this.#unsent(device, verdict);
        return;
      case 'misconfigured':
        this.#misconfigured(device, verdict);
    }
  }

  #misconfigured(device: PendingDevice, verdict: MisconfiguredVerdict): void {
    const { platform } = device.address!;
    if (this.#held.has(platform)) {
      this.#setAside(device);
    } else if (!this.#breaker.noteFault() && verdict.httpStatus !== null) {
      const { httpStatus, reason } = verdict;
      this.#later(device, { kind: 'later', httpStatus, reason, scope: 'device' }, false);
    } else if (verdict.isOnePlatform && this.#canGoOnWithout(platform)) {
      this.#held.set(platform, verdict);
      this.#setAside(device);
    } else {
      this.#stopFor({ kind: 'misconfigured', fault: verdict.fault, detail: verdict.detail });
      this.#defer(device, 0, verdict.reason, verdict.httpStatus, { attempts: 0, doubts: 0 });
    }
  }

  /** False: the audience seems to be of this platform alone, and a handful of refusals must be the end of it. */
  #canGoOnWithout(platform: Platform): boolean {
    return this.#breaker.isProven || this.#o.hasAccepted || this.#o.pending.hasOtherThan(platform);
  }

  /** Not sent to by this claim and not in doubt: a fresh device is deferred, a deferred one given back. */
  #setAside(device: PendingDevice): void {
    const { reason, httpStatus } = this.#held.get(device.address!.platform)!;
    this.#postpone(device, Date.now(), reason, httpStatus);
  }

  /** For a later run; not sent to by this one, or provably in vain. */
  #postpone(device: PendingDevice, notBefore: number, reason: string, httpStatus: number | null): void {
    this.devicesSetAside += 1;
    if (device.position === undefined) {
      this.#undispatched.deferredIds.push(device.deviceId);
      return;
    }
    const { deviceId, attempts, doubts } = device;
    this.#recorder.defer({
      deviceId,
      notBefore: new Date(notBefore),
      attempts,
      doubts,
      reason: cleanReason(reason),
      httpStatus,
    });
  }

  #later(device: PendingDevice, verdict: Verdict & { kind: 'later' }, isOverload: boolean): void {
    const { config, random } = this.#o;
    const attempts = device.attempts + 1;
    if (attempts >= config.maxAttempts) {
      this.#record(device, 'failed', `retry_exhausted: ${verdict.reason}`, verdict.httpStatus, 1);
      return;
    }
    const policy = { baseMs: config.retryBaseMs, maxMs: config.retryMaxMs, maxAttempts: config.maxAttempts };
    const waitMs = retryDelayMs(policy, attempts, verdict.afterMs, random());
    if (isOverload) this.#blockProvider(device, waitMs);
    this.#defer(device, waitMs, verdict.reason, verdict.httpStatus, { attempts: 1, doubts: 0 });
  }

  #unanswered(device: PendingDevice, reason: string, httpStatus: number | null): void {
    const { config, inDoubtPolicy, random } = this.#o;
    const doubts = device.doubts + 1;
    device.isInDoubt = true;
    if (inDoubtPolicy === 'skip' || doubts > config.maxDoubts || device.attempts + 1 >= config.maxAttempts) {
      this.#record(device, 'unknown', reason, httpStatus, 1);
      return;
    }
    const policy = { baseMs: config.retryBaseMs, maxMs: config.retryMaxMs, maxAttempts: config.maxAttempts };
    const waitMs = retryDelayMs(policy, doubts, config.retryBaseMs, random());
    this.#defer(device, waitMs, reason, httpStatus, { attempts: 1, doubts: 1 });
  }

  /** No connection to be had: the device waits, and everybody else of its host. No attempt. */
  #unsent(device: PendingDevice, { reason, afterMs }: Verdict & { kind: 'unsent' }): void {
    const host = this.#hosts.of(device)!;
    const { db, providerHosts } = this.#o;
    const scope = this.#scopeOf(host);
    // One that takes no more at the moment has answered before.
    const isUnreachable = !host.hasAnswered || reason.startsWith('connect_failed');
    if (isUnreachable && providerHosts.noteUnsent(scope, reason, afterMs)) {
      this.#storeTrouble(() => noteUnreachable(db, scope, reason, afterMs));
    }
    this.#block(host, afterMs, reason);
    this.#postpone(device, host.freeAt, reason, null);
  }

  /** Every worker of this app waits, as far as it sends to this host with this credential. */
  #blockProvider(device: PendingDevice, waitMs: number): void {
    const host = this.#hosts.of(device)!;
    const until = Date.now() + waitMs;
    this.#block(host, waitMs, 'rate limit');
    // One write for each answer would be too many: only a later end is written.
    if (until <= (this.#blockWrittenUntil.get(host) ?? 0) + 1_000) return;
    this.#blockWrittenUntil.set(host, until);
    this.#storeTrouble(() => blockHost(this.#o.db, this.#scopeOf(host), waitMs));
  }

  /**
   * Nothing more goes to this host. Where it is the only one, the run stops at once: the rest of the window is reserved already,
   * and would meet the same refusal. Otherwise its devices are set aside, and the others are sent to.
   */
  #block(host: BatchHost, waitMs: number, reason: string): void {
    if (this.#hosts.block(host, waitMs, reason)) this.#mayBeAlone = true;
    this.#setWaitingAside(host);
    if (this.#hosts.areAllBlocked) this.#stopFor(this.#waitFor(this.#hosts.firstBlocked!));
  }

  #setWaitingAside(host: BatchHost): void {
    for (const device of host.waiting.splice(0)) this.#postpone(device, host.freeAt, host.reason || 'held back', null);
  }

  #waitFor({ name, freeAt, reason }: BatchHost): SendEnd {
    const isOneOfMany = this.#hosts.areMany && !this.#hosts.areAllBlocked;
    return { kind: 'wait', waitMs: freeAt - Date.now(), reason, ...(isOneOfMany && { host: name }) };
  }

  /** What other workers have found out. */
  #learn({ host: name, waitMs, reason, isUnreachable, isLetThrough }: HostTrouble): void {
    const host = this.#hosts.named(name);
    if (host === undefined) return;
    if (isUnreachable) this.#o.providerHosts.noteKnown(this.#scopeOf(host));
    host.isTried ||= isLetThrough;
    if (waitMs > 0 && !(isUnreachable && host.isTried)) this.#block(host, waitMs, reason);
  }

  /** A request was written to it at least. */
  #noteReached(host: BatchHost, hasAnswered: boolean): void {
    host.hasAnswered ||= hasAnswered;
    if (!this.#o.providerHosts.isAnyAway) return;
    const scope = this.#scopeOf(host);
    if (this.#o.providerHosts.noteReached(scope)) this.#storeTrouble(() => noteReachable(this.#o.db, scope));
  }

  /** Whether everybody left is sent to by a host that is blocked: then the run ends, instead of setting them aside one by one. */
  async #isAlone(): Promise<boolean> {
    this.#mayBeAlone = false;
    const blocked = this.#hosts.firstBlocked;
    if (blocked === undefined || this.#end !== undefined) return this.#end !== undefined;
    const { claim, db, giveUp } = this.#o;
    if (this.#hosts.isAnyFree(await retryDatabase(() => listOpenEnvironments(db, claim), giveUp))) return false;
    this.#stopFor(this.#waitFor(blocked));
    return true;
  }

  #scopeOf({ name }: BatchHost): HostScope {
    const { appId, claim, provider } = this.#o;
    return { appId, provider: claim.provider, host: name, credential: provider.credential };
  }

  /** Without such a write the other batches learn from refusals of their own: no reason to fail this one. */
  #storeTrouble(write: () => Promise<void>): void {
    this.#troubleStored = this.#troubleStored.then(() => retryDatabase(write, this.#o.giveUp)).catch(() => {});
  }

  #defer(
    device: PendingDevice,
    waitMs: number,
    reason: string,
    httpStatus: number | null,
    add: { attempts: number; doubts: number },
  ): void {
    const notBefore = new Date(Date.now() + waitMs);
    const { expiresAt } = this.#o;
    if (expiresAt !== null && notBefore >= expiresAt) {
      const isInDoubt = device.doubts + add.doubts > 0;
      this.#record(device, isInDoubt ? 'unknown' : 'expired', reason, httpStatus, add.attempts);
      return;
    }
    const deferral = {
      deviceId: device.deviceId,
      notBefore,
      attempts: device.attempts + add.attempts,
      doubts: device.doubts + add.doubts,
      reason: cleanReason(reason),
      httpStatus,
    };
    this.#recorder.defer(deferral);
    this.#o.pending.defer(deferral);
  }

  #judge(judgement: Judgement): void {
    if (judgement.kind === 'hold') return;
    if (judgement.kind === 'halt') {
      for (const { device, verdict } of judgement.held) {
        this.#defer(device, 0, verdict.reason, verdict.httpStatus, { attempts: 0, doubts: 0 });
      }
      this.#stopFor({ kind: 'misconfigured', fault: judgement.fault, detail: judgement.detail });
      return;
    }
    for (const { device, verdict } of judgement.held) {
      // A later judgement must not bring back what an earlier one halted for.
      if (this.#end?.kind === 'misconfigured') {
        this.#defer(device, 0, verdict.reason, verdict.httpStatus, { attempts: 0, doubts: 0 });
      } else if (verdict.kind === 'unregistered') {
        this.#recordUnregistered(device, verdict);
      } else {
        this.#record(device, 'rejected', verdict.detail ?? verdict.reason, verdict.httpStatus, 1);
      }
    }
  }

  #recordUnregistered(device: PendingDevice, verdict: Verdict & { kind: 'unregistered' }): void {
    const { deviceId, address, readAt } = device;
    this.#record(device, 'unregistered', verdict.reason, verdict.httpStatus, 1, undefined, {
      deviceId,
      deviceToken: address!.deviceToken,
      invalidAt: verdict.invalidAt !== undefined && verdict.invalidAt < readAt ? verdict.invalidAt : readAt,
      reason: cleanReason(verdict.reason),
    });
  }

  #record(
    device: PendingDevice,
    outcome: Outcome,
    reason: string | null,
    httpStatus: number | null,
    addAttempts = 0,
    providerMessageId?: string,
    retirement?: Retirement,
  ): void {
    const record: DeliveryRecord = {
      deviceId: device.deviceId,
      outcome,
      reason: reason === null ? null : cleanReason(reason),
      httpStatus,
      providerMessageId: providerMessageId ?? null,
      attempts: device.attempts + addAttempts,
      inDoubt: device.isInDoubt,
    };
    this.#recorder.add(record, device.position === undefined, retirement);
  }

  /** The first reason counts. */
  #stopFor(end: SendEnd): void {
    this.#end ??= end;
    this.#wakeDispatcher?.();
    this.#wakeDispatcher = undefined;
  }

  #noteUndispatched(devices: PendingDevice[], from: number): void {
    for (const device of devices.slice(from)) {
      if (device.position === undefined) this.#undispatched.deferredIds.push(device.deviceId);
      else if (this.#undispatched.position === undefined || device.position < this.#undispatched.position) {
        this.#undispatched.position = device.position;
      }
    }
  }

  async #answersInFlight(): Promise<void> {
    const { giveUp } = this.#o;
    if (this.#inFlight === 0 || giveUp.aborted) return;
    await new Promise<void>((resolve) => {
      this.#onDrained = resolve;
      giveUp.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  /** In-doubt devices stay below the horizon: it never moves under the place where this claim began. */
  async #giveBack(): Promise<void> {
    const { claim, db, giveUp } = this.#o;
    const { position, deferredIds } = this.#undispatched;
    if (position === undefined && deferredIds.length === 0) return;
    const undispatched = {
      position: position === undefined ? undefined : Math.max(position, claim.horizon),
      deferredIds,
    };
    await retryDatabase(() => db.transaction().execute((trx) => returnReserved(trx, claim, undispatched)), giveUp);
  }
}

function isFenced(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === 'fenced';
}
