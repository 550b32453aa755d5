import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Claim, type Reservation, reserveWindow, returnReserved } from '../../db/batches.ts';
import { cleanReason, type Retirement } from '../../db/deliveries.ts';
import type { Address } from '../../db/device-addresses.ts';
import { blockUntil, providerScope } from '../../db/rate-limits.ts';
import { pause, retryDatabase } from '../../db/retry-database.ts';
import type { Database } from '../../db/schema.ts';
import { keepEvidence, reviveSuspects } from '../../db/token-evidence.ts';
import type { WorkerConfig } from '../../domain/config.ts';
import type { HaltReason, InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import { weighTokens } from '../../domain/token-evidence.ts';
import type {
  DeviceAddress,
  LaterVerdict,
  MisconfiguredVerdict,
  PreparedMessage,
  PushProvider,
  RejectedVerdict,
  UnansweredVerdict,
  UnregisteredVerdict,
  Verdict,
} from '../providers/provider.ts';
import { Breaker, type BreakerCall, type Suspect, suspicionOf } from './breaker.ts';
import { type Decision, type DeliveryRules, decide, orExpire } from './decide.ts';
import type { OverloadWatch, ProviderHealth, ProviderSign } from './overload-watch.ts';
import { isSamePart, type PendingDevice, type PendingDevices } from './pending-devices.ts';
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
  /** Before a halt on suspicion, so many devices elsewhere in the audience are to be asked. */
  | { kind: 'askElsewhere'; devices: number; suspects: number }
  | { kind: 'shutdown' }
  | { kind: 'failed'; error: unknown };

export interface BatchSenderOptions {
  db: Kysely<Database>;
  pool: pg.Pool;
  claim: Claim;
  appId: number;
  expiresAt: Date | null;
  inDoubtPolicy: InDoubtPolicy;
  provider: PushProvider;
  prepared: PreparedMessage;
  pending: PendingDevices;
  /** How many called for `pending.askElsewhere`. */
  suspectsBefore: number;
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

/** Acceptances are told to the evidence at least so often, so that others need not wait for the end of the batch. */
const evidenceMs = 10_000;
/** More suspects are never held: a crash would leave them in doubt. */
const maxSuspects = 200;
/** One device that meets a configuration fault for ever is at fault itself when so many others were accepted. */
const acceptedForOneFault = 9;

/** Devices of the batch that stand or fall together: one platform and environment, sent to with one configuration. */
interface Part extends Pick<Address, 'platform' | 'apnsEnvironment'> {
  configuration: string;
  scope: string;
  breaker: Breaker;
  health: ProviderHealth;
  /** Why its devices wait for a halt while the others are sent to. */
  held: { fault: HaltReason; detail: string; reason: string; httpStatus: number | null } | undefined;
}

/**
 * Sends one claimed batch: reserves a window in the books, dispatches it while the next one is being reserved, and turns
 * every verdict into an outcome, a deferral or the end of the send.
 */
export class BatchSender {
  readonly #o: BatchSenderOptions;
  readonly #recorder: Recorder;
  readonly #scope: string;
  readonly #parts: Part[] = [];
  #end: SendEnd | undefined;
  #inFlight = 0;
  #maxInFlight = unprovenInFlight;
  #wakeDispatcher: (() => void) | undefined;
  #onDrained: (() => void) | undefined;
  #windowSize = smallestWindow;
  /** The earliest fresh device that was reserved and not dispatched; with the deferred ones it is given back at the end. */
  #undispatched: { position: number | undefined; deferredIds: number[] } = { position: undefined, deferredIds: [] };
  /** Judgements under way, one after the other. */
  #judging: Promise<void> = Promise.resolve();
  #evidenceKeptAt = performance.now();
  /** Devices that nobody has tried, reserved and not dispatched yet. */
  #reservedUntried = 0;
  #blockedUntil = 0;
  #blockWritten: Promise<void> = Promise.resolve();
  dispatched = 0;
  answered = 0;
  /** Devices that wait because of their platform or environment. */
  devicesSetAside = 0;

  constructor(options: BatchSenderOptions) {
    this.#o = options;
    this.#scope = providerScope(options.appId, options.claim.provider);
    const { db, pool, claim, config, giveUp } = options;
    this.#recorder = new Recorder(db, pool, claim, config.windowSize, giveUp, (error) => this.#fail(error));
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
      if (this.#o.pending.isAskingElsewhere) await this.#askElsewhere();
      await this.#dispatchWindows();
    } catch (error) {
      this.#fail(error);
    }
    await this.#answersInFlight();
    try {
      await this.#judging;
      await this.#judgeWhoIsHeld();
      await this.#blockWritten;
      await this.#recorder.flush();
      await this.#giveBack();
    } catch (error) {
      this.#fail(error);
    }
    this.#o.stop.removeEventListener('abort', onStop);
    const held = this.#parts.find((part) => part.held !== undefined)?.held;
    return this.#end ?? (held ? { kind: 'held', fault: held.fault, detail: held.detail } : { kind: 'exhausted' });
  }

  /** Only the devices that were brought forward; what they say decides whether the others are sent to. */
  async #askElsewhere(): Promise<void> {
    await this.#dispatchWindows();
    await this.#answersInFlight();
    this.#o.pending.endElsewhere();
    if (this.#end !== undefined) return;
    for (const part of this.#parts) {
      if (part.breaker.judgeElsewhere() === 'halt') await this.#haltForTokens(part);
    }
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
      this.#tellAcceptances();
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
        this.#reservedUntried += Math.min(positions.length, reservation.granted);
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
      while (this.#end === undefined && this.#inFlight >= this.#maxInFlight) {
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

  /** Half-way towards the number of devices that `windowMs` would have sent. */
  #adaptWindow(devices: number, elapsedMs: number): void {
    const fitting = (devices * windowMs) / Math.max(1, elapsedMs);
    const next = Math.round((this.#windowSize + fitting) / 2);
    this.#windowSize = Math.max(smallestWindow, Math.min(this.#o.config.windowSize, next));
  }

  #send(device: PendingDevice): void {
    const { address } = device;
    // Sent to once more, the phone may show it twice.
    if (device.reached === 'perhaps') device.doubts = Math.max(1, device.doubts);
    const { doubts } = device;
    const { inDoubtPolicy, config, provider, prepared, expiresAt, pending } = this.#o;
    if (device.position !== undefined) this.#reservedUntried -= 1;
    if (address === undefined) {
      // Whoever is gone may still have got an earlier attempt.
      this.#recordUnsent(device, doubts > 0 ? 'unknown' : 'skipped', 'device_gone');
      return;
    }
    if (device.reached === 'certainly') {
      this.#recordUnsent(device, doubts > 0 ? 'unknown' : 'skipped', 'already_reached');
      return;
    }
    if (doubts > 0 && (inDoubtPolicy === 'skip' || doubts > config.maxDoubts)) {
      this.#recordUnsent(device, 'unknown', 'in_doubt');
      return;
    }
    const { deviceToken, apnsEnvironment } = address;
    const target: DeviceAddress = {
      deviceId: device.deviceId,
      deviceToken,
      apnsEnvironment,
      platform: address.platform,
    };
    const part = this.#partOf(address, target);
    if (part.held !== undefined) {
      this.#setAside(device, part.held);
      return;
    }
    // A window that waits for room can outlast the time to live: the next reservation stops the batch, this device has its end here.
    if (expiresAt !== null && pending.clock.nowMs() >= expiresAt.getTime()) {
      this.#recordUnsent(device, doubts > 0 ? 'unknown' : 'expired', doubts > 0 ? 'in_doubt' : null);
      return;
    }
    this.#inFlight += 1;
    this.dispatched += 1;
    const number = part.health.begin();
    provider.send(prepared, target).then(
      (verdict) => this.#settle(device, part, number, verdict),
      // `send` always resolves; should it break its word, the device is in doubt, and the batch goes on.
      (error: unknown) =>
        this.#settle(device, part, number, { kind: 'unanswered', httpStatus: null, reason: String(error) }),
    );
  }

  #partOf(address: Address, target: DeviceAddress): Part {
    for (const part of this.#parts) if (isSamePart(part, address)) return part;
    const { platform, apnsEnvironment } = address;
    const { appId, claim, provider, prepared, overload, pending } = this.#o;
    const configuration = `${claim.provider} ${platform} ${provider.configurationOf(prepared, target)}`;
    const breaker = new Breaker();
    if (pending.isAskingElsewhere) breaker.askElsewhere(this.#o.suspectsBefore);
    const scope = this.#scope;
    const health = overload.of(`${appId} ${configuration}`);
    const part: Part = { platform, apnsEnvironment, configuration, scope, breaker, health, held: undefined };
    this.#parts.push(part);
    return part;
  }

  #settle(device: PendingDevice, part: Part, number: number, verdict: Verdict): void {
    this.#inFlight -= 1;
    this.answered += 1;
    this.#apply(device, part, number, verdict);
    if (this.#inFlight === 0) this.#onDrained?.();
    if (this.#wakeDispatcher !== undefined && (this.#end !== undefined || this.#inFlight < this.#maxInFlight)) {
      const wake = this.#wakeDispatcher;
      this.#wakeDispatcher = undefined;
      wake();
    }
  }

  #apply(device: PendingDevice, part: Part, number: number, verdict: Verdict): void {
    const { breaker, health } = part;
    switch (verdict.kind) {
      case 'accepted':
        health.note(number, 'well');
        this.#record(device, {
          kind: 'record',
          outcome: 'accepted',
          reason: null,
          httpStatus: verdict.httpStatus,
          attempts: device.attempts + 1,
          excused: device.excused,
          doubts: device.doubts,
          providerMessageId: verdict.providerMessageId,
        });
        this.#noteProof(part, breaker.noteAccepted());
        return;
      case 'unregistered':
        health.note(number, 'well');
        if (verdict.isSuspicious) {
          this.#heed(part, breaker.noteSuspicious({ device, verdict }));
          return;
        }
        this.#retire(device, verdict);
        this.#noteProof(part, breaker.noteProof());
        return;
      case 'rejected':
        health.note(number, 'well');
        if (verdict.isPayloadFault && !breaker.isProven && !(verdict.isOnePlatform && this.#canGoOnWithout(part))) {
          if (breaker.notePayloadFault({ device, verdict })) this.#haltForPayload(part, verdict);
          return;
        }
        this.#carryOut(device, decide(verdict, device, this.#rules()));
        this.#heed(part, breaker.noteAnswer());
        return;
      case 'later':
      case 'unanswered': {
        const decision = decide(verdict, device, this.#rules());
        this.#carryOut(device, decision);
        if (health.note(number, signOf(verdict))) this.#holdBackAll(part, decision);
        if (verdict.kind === 'later') this.#heed(part, breaker.noteAnswer());
        return;
      }
      case 'unsent': {
        const decision = decide(verdict, device, this.#rules());
        this.#carryOut(device, decision);
        if (decision.kind === 'defer') {
          this.#stopFor({ kind: 'wait', waitMs: verdict.afterMs, reason: verdict.reason });
        }
        return;
      }
      case 'misconfigured':
        health.note(number, 'well');
        this.#misconfigured(device, part, verdict);
    }
  }

  /** Somebody was taken: all may be sent to at full speed, and whoever refused the message did so for itself. */
  #noteProof(part: Part, call: BreakerCall): void {
    this.#maxInFlight = this.#o.config.maxInFlight;
    const { payloadFaults } = part.breaker;
    if (payloadFaults.length > 0) {
      for (const { device, verdict } of payloadFaults.splice(0)) {
        this.#carryOut(device, decide(verdict, device, this.#rules()));
      }
    }
    this.#heed(part, call);
  }

  #heed(part: Part, call: BreakerCall): void {
    switch (call) {
      case 'nothing':
        return;
      case 'askElsewhere':
        if (this.#o.pending.hasUntried || this.#reservedUntried > 0) {
          const { sizeOfElsewhere, suspects } = part.breaker;
          this.#stopFor({ kind: 'askElsewhere', devices: sizeOfElsewhere, suspects: suspects.length });
        } else if (part.breaker.suspects.length >= maxSuspects) this.#judgeLater(() => this.#weigh(part));
        return;
      case 'weigh':
        this.#judgeLater(() => this.#weigh(part));
    }
  }

  #judgeLater(judge: () => Promise<unknown>): void {
    this.#judging = this.#judging.then(judge).then(
      () => {},
      (error: unknown) => this.#fail(error),
    );
  }

  #misconfigured(device: PendingDevice, part: Part, verdict: MisconfiguredVerdict): void {
    const { claim } = this.#o;
    const { httpStatus, reason, fault, detail } = verdict;
    if (part.held !== undefined) {
      this.#setAside(device, part.held);
      return;
    }
    if (!part.breaker.noteFault(device, claim.accepted > 0) && httpStatus !== null) {
      const next = decide({ kind: 'later', httpStatus, reason, scope: 'device' }, device, this.#rules());
      if (next.kind === 'defer') {
        this.#carryOut(device, next);
        return;
      }
      if (claim.accepted >= acceptedForOneFault) {
        this.#record(device, { ...next, outcome: next.outcome === 'failed' ? 'rejected' : next.outcome, reason });
        return;
      }
    }
    const isPartial = verdict.isOnePlatform === true || fault === 'environment';
    if (isPartial && (claim.accepted > 0 || part.breaker.isProven || this.#canGoOnWithout(part))) {
      part.held = { fault, detail, reason, httpStatus };
      this.#setAside(device, part.held);
    } else {
      this.#haltFor(fault, detail);
      this.#putOff(device, 0, reason, httpStatus);
    }
  }

  /** False: the audience seems to be of this part alone, and a handful of refusals must be the end of it. */
  #canGoOnWithout(part: Part): boolean {
    const isOtherProven = this.#parts.some((other) => other !== part && other.breaker.isProven);
    return isOtherProven || this.#o.pending.hasOtherThan(part);
  }

  /** Not sent to by this claim and not in doubt: a fresh device is deferred, a deferred one given back. */
  #setAside(device: PendingDevice, { reason, httpStatus }: NonNullable<Part['held']>): void {
    this.devicesSetAside += 1;
    if (device.position === undefined) {
      this.#undispatched.deferredIds.push(device.deviceId);
      return;
    }
    const { deviceId, attempts, excused, doubts } = device;
    const notBefore = this.#o.pending.clock.instantIn(0);
    this.#recorder.defer({
      ...{ deviceId, notBefore, attempts, excused, doubts, httpStatus },
      reason: cleanReason(reason),
    });
  }

  /**
   * Every worker of this app and provider waits. This one stops at once: the rest of its window is reserved already, and would
   * meet the same refusal. One write for each answer would be too many: only a later end is written.
   */
  #holdBackAll(part: Part, decision: Decision): void {
    const { retryBaseMs, retryMaxMs } = this.#o.config;
    const { isFailing } = part.health;
    // Once a run: the other answers under way say the same.
    const isNew = isFailing && this.#end === undefined;
    const outageMs = isNew ? Math.min(retryMaxMs, part.health.outageWaitMs(retryBaseMs)) : 0;
    const waitMs = Math.max(outageMs, decision.kind === 'defer' ? decision.waitMs : 0);
    this.#stopFor({ kind: 'wait', waitMs, reason: isFailing ? 'provider fails' : 'rate limit' });
    const until = this.#o.pending.clock.nowMs() + waitMs;
    if (until <= this.#blockedUntil + 1_000) return;
    this.#blockedUntil = until;
    const write = () => retryDatabase(() => blockUntil(this.#o.db, part.scope, new Date(until)), this.#o.giveUp);
    // Without it the other batches learn from refusals of their own: no reason to fail this one.
    this.#blockWritten = this.#blockWritten.then(write).catch(() => {});
  }

  // Judgement of those whose answer may speak of the configuration

  /** Others judge by it too: sends to a few devices, and batches of other workers. */
  #tellAcceptances(): void {
    if (performance.now() - this.#evidenceKeptAt < evidenceMs) return;
    this.#evidenceKeptAt = performance.now();
    for (const part of this.#parts) {
      if (part.breaker.acceptedUnkept > 0) this.#judgeLater(() => this.#keepEvidence(part, []));
    }
  }

  #keepEvidence(part: Part, suspects: Suspect[]) {
    const { db, appId, giveUp } = this.#o;
    const accepted = part.breaker.acceptedUnkept;
    part.breaker.acceptedUnkept = 0;
    const suspectIds = suspects.map(({ device }) => device.deviceId);
    return retryDatabase(() => keepEvidence(db, appId, part.configuration, { accepted, suspectIds }), giveUp);
  }

  /** In mid-run: whoever can't be judged yet is held on. */
  async #weigh(part: Part): Promise<void> {
    const suspects = part.breaker.suspects.splice(0);
    if (suspects.length === 0) return;
    const judgement = weighTokens(await this.#keepEvidence(part, suspects));
    if (judgement === 'dead' && this.#end?.kind !== 'misconfigured') this.#believe(suspects);
    else part.breaker.suspects.unshift(...suspects);
    if (judgement === 'fault') await this.#haltForTokens(part);
  }

  /** At the end of the run, when nothing more is under way. */
  async #judgeWhoIsHeld(): Promise<void> {
    const { pending } = this.#o;
    const isLastRun = this.#end === undefined && !pending.hasUntried && pending.deferred + this.devicesSetAside === 0;
    for (const part of this.#parts) {
      const { breaker } = part;
      if (breaker.acceptedUnkept + breaker.suspects.length > 0) {
        const judgement = weighTokens(await this.#keepEvidence(part, breaker.suspects));
        if (this.#end?.kind !== 'misconfigured' && this.#end?.kind !== 'askElsewhere') {
          if (judgement === 'dead') this.#believe(breaker.suspects.splice(0));
          else if (judgement === 'fault' && (this.#end === undefined || this.#end.kind === 'wait')) {
            await this.#haltForTokens(part);
          }
        }
      }
      // Believed or not, the provider will not take the message for them.
      for (const { device, verdict } of [...breaker.suspects.splice(0), ...breaker.payloadFaults.splice(0)]) {
        if (isLastRun && this.#end === undefined) this.#reject(device, verdict);
        else this.#putOff(device, this.#waitOfOthers(), verdict.reason, verdict.httpStatus);
      }
    }
  }

  #believe(suspects: Suspect[]): void {
    for (const { device, verdict } of suspects) {
      if (verdict.isOtherTopic) this.#reject(device, verdict);
      else this.#retire(device, verdict);
    }
  }

  /** The configuration must be wrong: nobody who is held is at fault, nor were those who were retired for the same today. */
  async #haltForTokens(part: Part): Promise<void> {
    const { db, appId, giveUp } = this.#o;
    const suspects = part.breaker.suspects.splice(0);
    const { accepted, suspicious } = await this.#keepEvidence(part, suspects);
    const revived = await retryDatabase(() => reviveSuspects(db, appId, part.configuration), giveUp);
    const { reason, fault, check } = suspicionOf(suspects);
    const answers = `${Math.round(suspicious)} of the last ${Math.round(accepted + suspicious)} answers were ${reason}`;
    const live =
      revived === 0 ? 'No device was retired.' : `${revived} devices that were retired for it are live again.`;
    const detail = `${answers}: ${check} ${live}`;
    if (this.#canGoOnWithout(part)) part.held = { fault, detail, reason, httpStatus: 400 };
    else this.#haltFor(fault, detail);
    for (const { device, verdict } of suspects) this.#putOff(device, 0, verdict.reason, verdict.httpStatus);
  }

  #haltForPayload(part: Part, verdict: RejectedVerdict): void {
    const { payloadFaults } = part.breaker;
    const text = verdict.detail ? `${verdict.reason}, ${verdict.detail}` : verdict.reason;
    this.#haltFor('payload', `The first ${payloadFaults.length} devices refused the message itself: ${text}.`);
  }

  /** Stronger than a wait. */
  #haltFor(fault: HaltReason, detail: string): void {
    if (this.#end?.kind === 'wait' || this.#end?.kind === 'askElsewhere') this.#end = undefined;
    this.#stopFor({ kind: 'misconfigured', fault, detail });
  }

  // Carrying out

  #rules(): DeliveryRules {
    const { config, inDoubtPolicy, random, expiresAt, pending } = this.#o;
    return {
      retry: { baseMs: config.retryBaseMs, maxMs: config.retryMaxMs, maxAttempts: config.maxAttempts },
      maxDoubts: config.maxDoubts,
      inDoubtPolicy,
      msLeft: expiresAt === null ? undefined : expiresAt.getTime() - pending.clock.nowMs(),
      random: random(),
    };
  }

  /** When those who wait anyway are tried again. */
  #waitOfOthers(): number {
    if (this.#end?.kind === 'wait') return this.#end.waitMs;
    return this.#end === undefined ? (this.#o.pending.msUntilNextDeferred() ?? 0) : 0;
  }

  /** As if it had not been sent to. */
  #putOff(device: PendingDevice, waitMs: number, reason: string, httpStatus: number | null): void {
    const { attempts, excused, doubts } = device;
    const decision = { kind: 'defer', waitMs, reason, httpStatus, attempts, excused, doubts } as const;
    this.#carryOut(device, orExpire(decision, this.#rules()));
  }

  #retire(device: PendingDevice, verdict: UnregisteredVerdict): void {
    const { deviceId, address, readAt } = device;
    this.#carryOut(device, decide(verdict, device, this.#rules()), {
      deviceId,
      deviceToken: address!.deviceToken,
      invalidAt: verdict.invalidAt !== undefined && verdict.invalidAt < readAt ? verdict.invalidAt : readAt,
      reason: cleanReason(verdict.reason),
    });
  }

  /** The provider does not take the message for it, and nothing more is concluded. */
  #reject(device: PendingDevice, verdict: RejectedVerdict | UnregisteredVerdict): void {
    const rejected = { ...verdict, kind: 'rejected', isPayloadFault: false } as const;
    this.#carryOut(device, decide(rejected, device, this.#rules()));
  }

  #recordUnsent(device: PendingDevice, outcome: Outcome, reason: string | null): void {
    const { attempts, excused, doubts } = device;
    this.#record(device, { kind: 'record', outcome, reason, httpStatus: null, attempts, excused, doubts });
  }

  #carryOut(device: PendingDevice, decision: Decision, retirement?: Retirement): void {
    if (decision.kind === 'record') {
      this.#record(device, decision, retirement);
      return;
    }
    const { waitMs, reason, httpStatus, attempts, excused, doubts } = decision;
    const deferral = {
      deviceId: device.deviceId,
      notBefore: this.#o.pending.clock.instantIn(waitMs),
      ...{ attempts, excused, doubts, httpStatus },
      reason: cleanReason(reason ?? ''),
    };
    this.#recorder.defer(deferral);
    this.#o.pending.defer(deferral);
  }

  #record(device: PendingDevice, decision: Decision & { kind: 'record' }, retirement?: Retirement): void {
    const { outcome, reason, httpStatus, providerMessageId, attempts, doubts } = decision;
    this.#recorder.add(
      {
        deviceId: device.deviceId,
        outcome,
        reason: reason === null ? null : cleanReason(reason),
        httpStatus,
        providerMessageId: providerMessageId ?? null,
        attempts,
        inDoubt: doubts > 0,
      },
      device.position === undefined,
      retirement,
    );
  }

  #fail(error: unknown): void {
    this.#stopFor(isFenced(error) ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
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

function signOf(verdict: LaterVerdict | UnansweredVerdict): ProviderSign {
  if (verdict.scope === 'provider') return 'refusal';
  return verdict.kind === 'unanswered' ? 'failure' : 'well';
}
