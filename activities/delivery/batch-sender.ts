import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Claim, type Reservation, reserveWindow, returnReserved } from '../../db/batches.ts';
import { cleanReason, type DeliveryRecord, type Retirement } from '../../db/deliveries.ts';
import { blockUntil, providerScope } from '../../db/rate-limits.ts';
import { pause, retryDatabase } from '../../db/retry-database.ts';
import type { Database } from '../../db/schema.ts';
import type { WorkerConfig } from '../../domain/config.ts';
import type { Platform } from '../../domain/device.ts';
import type { HaltReason, InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import { retryDelayMs } from '../../domain/retry-policy.ts';
import type { MisconfiguredVerdict, PreparedMessage, PushProvider, Verdict } from '../providers/provider.ts';
import { Breaker, type Judgement } from './breaker.ts';
import type { OverloadWatch } from './overload-watch.ts';
import type { PendingDevice, PendingDevices } from './pending-devices.ts';
import { Recorder } from './recorder.ts';

/** Requests under way until the first device was accepted: a wrong key or topic must not meet a whole window. */
const unprovenInFlight = 5;
/** A window holds about so much sending, so that a crash leaves few devices in doubt. */
const windowMs = 100;
const smallestWindow = 20;
/** A rate limit that frees this soon is waited for here; a longer one on a durable timer. */
const maxWaitHereMs = 2_000;

/** Why a run of the sender ended. */
export type SendEnd =
  | { kind: 'exhausted' }
  | { kind: 'wait'; waitMs: number; reason: string }
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
  #blockedUntil = 0;
  #blockWritten: Promise<void> = Promise.resolve();
  dispatched = 0;
  answered = 0;
  /** Devices that wait because of their platform. */
  devicesSetAside = 0;

  constructor(options: BatchSenderOptions) {
    this.#o = options;
    this.#scope = providerScope(options.appId, options.claim.provider);
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
    try {
      await this.#dispatchWindows();
    } catch (error) {
      this.#stopFor(isFenced(error) ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
    }
    await this.#answersInFlight();
    this.#judge(this.#breaker.finish());
    await this.#blockWritten;
    try {
      await this.#recorder.flush();
      await this.#giveBack();
    } catch (error) {
      this.#stopFor(isFenced(error) ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
    }
    this.#o.stop.removeEventListener('abort', onStop);
    const [held] = this.#held.values();
    return this.#end ?? (held ? { kind: 'held', fault: held.fault, detail: held.detail } : { kind: 'exhausted' });
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
      // So a crash leaves at most three windows in doubt (outcomes not written, the one being sent, the next), the requests under way,
      // and the answers that the breaker holds.
      await this.#recorder.room(config.windowSize);
      const devices = await retryDatabase(() => pending.peek(this.#windowSize), giveUp);
      if (devices.length === 0) return undefined;
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
        () => reserveWindow(pool, claim, { positions, deferredIds, providerScope: this.#scope }),
        giveUp,
      );
      if (reservation.answer === 'go') {
        pending.take(reservation.granted);
        return { devices: devices.slice(0, reservation.granted) };
      }
      await this.#holdBack(reservation);
    }
    return undefined;
  }

  async #holdBack(reservation: Exclude<Reservation, { answer: 'go' }>): Promise<void> {
    switch (reservation.answer) {
      case 'wait':
        if (reservation.waitMs > maxWaitHereMs) {
          this.#stopFor({ kind: 'wait', waitMs: reservation.waitMs, reason: 'rate limit' });
        } else {
          await pause(reservation.waitMs, this.#o.stop);
        }
        return;
      case 'expired':
        this.#stopFor({ kind: 'expired' });
        return;
      default:
        this.#stopFor({ kind: 'stopped', reason: reservation.answer });
    }
  }

  async #dispatch(window: Window): Promise<void> {
    const { devices } = window;
    for (let i = 0; i < devices.length; i++) {
      while (this.#end === undefined && this.#inFlight >= this.#limit()) {
        await new Promise<void>((resolve) => {
          this.#wakeDispatcher = resolve;
        });
      }
      if (this.#end !== undefined) {
        this.#noteUndispatched(devices, i);
        return;
      }
      this.#send(devices[i]!);
    }
  }

  #limit(): number {
    if (!this.#breaker.isProven) return unprovenInFlight;
    return Math.min(this.#o.config.maxInFlight, this.#o.provider.usefulRequests ?? Number.POSITIVE_INFINITY);
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
    this.#inFlight -= 1;
    this.answered += 1;
    this.#apply(device, verdict);
    if (this.#inFlight === 0) this.#onDrained?.();
    if (this.#wakeDispatcher !== undefined && (this.#end !== undefined || this.#inFlight < this.#limit())) {
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
        this.#defer(device, verdict.afterMs, verdict.reason, null, { attempts: 0, doubts: 0 });
        this.#stopFor({ kind: 'wait', waitMs: verdict.afterMs, reason: verdict.reason });
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
    this.devicesSetAside += 1;
    if (device.position === undefined) {
      this.#undispatched.deferredIds.push(device.deviceId);
      return;
    }
    const { deviceId, attempts, doubts } = device;
    const { reason, httpStatus } = this.#held.get(device.address!.platform)!;
    this.#recorder.defer({
      deviceId,
      notBefore: new Date(),
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
    if (isOverload) this.#blockProvider(waitMs);
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

  /**
   * Every worker of this app and provider waits. This one stops at once: the rest of its window is reserved already, and would
   * meet the same refusal. One write for each answer would be too many: only a later end is written.
   */
  #blockProvider(waitMs: number): void {
    this.#stopFor({ kind: 'wait', waitMs, reason: 'rate limit' });
    const until = Date.now() + waitMs;
    if (until <= this.#blockedUntil + 1_000) return;
    this.#blockedUntil = until;
    const write = () => retryDatabase(() => blockUntil(this.#o.db, this.#scope, new Date(until)), this.#o.giveUp);
    // Without it the other batches learn from refusals of their own: no reason to fail this one.
    this.#blockWritten = this.#blockWritten.then(write).catch(() => {});
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
