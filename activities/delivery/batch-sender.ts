import { providerScope } from '../../db/rate-limits.ts';
import { retryDatabase } from '../../db/retry-database.ts';
import { type Reservation, reserveWindow } from '../../db/windows.ts';
import type {
  DeviceAddress,
  LaterVerdict,
  MisconfiguredVerdict,
  UnansweredVerdict,
  UnsentVerdict,
  Verdict,
} from '../../providers/provider.ts';
import { BatchBooks } from './batch-books.ts';
import { BatchHosts } from './batch-hosts.ts';
import { BatchParts, type Part } from './batch-parts.ts';
import type { BatchRun } from './batch-run.ts';
import { BatchSlot, maxWaitHereMs, silenceMs } from './batch-slot.ts';
import type { BreakerCall } from './breaker.ts';
import { decide } from './decide.ts';
import { HostTroubles } from './host-troubles.ts';
import type { ProviderHealth, ProviderSign } from './overload-watch.ts';
import type { PendingDevice } from './pending-devices.ts';
import { Recorder } from './recorder.ts';
import { RunEnd, type SendEnd } from './run-end.ts';
import { TokenJudgement } from './token-judgement.ts';

/** A window holds about so much sending, so that a crash leaves few devices in doubt. */
const windowMs = 100;
const smallestWindow = 20;
/** More suspects are never held: a crash would leave them in doubt. */
const maxSuspects = 200;
/** One device that meets a configuration fault for ever is at fault itself when so many others were accepted. */
const acceptedForOneFault = 9;

interface Window {
  devices: PendingDevice[];
}

/**
 * Sends one claimed batch: reserves a window in the books, dispatches it while the next one is being reserved, and turns
 * every verdict into an outcome, a deferral or the end of the send.
 */
export class BatchSender {
  readonly #run: BatchRun;
  readonly #scope: string;
  readonly #end = new RunEnd(() => this.#wakeUp());
  readonly #slot: BatchSlot;
  readonly #hosts: BatchHosts;
  readonly #parts: BatchParts;
  readonly #recorder: Recorder;
  readonly #books: BatchBooks;
  readonly #troubles: HostTroubles;
  readonly #judgement: TokenJudgement;
  #inFlight = 0;
  #wakeDispatcher: (() => void) | undefined;
  #onDrained: (() => void) | undefined;
  #windowSize = smallestWindow;
  /** Devices that nobody has tried, reserved and not dispatched yet. */
  #reservedUntried = 0;
  dispatched = 0;
  answered = 0;

  constructor(run: BatchRun) {
    this.#run = run;
    this.#scope = providerScope(run.appId, run.claim.provider);
    this.#slot = new BatchSlot(run);
    this.#hosts = new BatchHosts(run);
    this.#parts = new BatchParts(run, this.#hosts);
    const { db, pool, claim, config, giveUp } = run;
    this.#recorder = new Recorder(db, pool, claim, config.windowSize, giveUp, (error) => this.#end.fail(error));
    this.#books = new BatchBooks(run, this.#recorder);
    this.#troubles = new HostTroubles(run, this.#end, this.#hosts, this.#books);
    this.#judgement = new TokenJudgement(run, this.#end, this.#parts, this.#books);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Devices that wait because of their platform or host. */
  get devicesSetAside(): number {
    return this.#books.devicesSetAside;
  }

  get isFinished(): boolean {
    return this.#recorder.isFinished;
  }

  /** Sends until nothing can be sent now, or the send must stop. All that was answered is recorded when it returns. */
  async run(): Promise<SendEnd> {
    const onStop = () => this.#end.stopFor({ kind: 'shutdown' });
    if (this.#run.stop.aborted) onStop();
    this.#run.stop.addEventListener('abort', onStop);
    const looks = setInterval(() => this.#slot.leaveInSilence(this.answered, this.#inFlight), silenceMs);
    try {
      if (this.#run.pending.isAskingElsewhere) await this.#askElsewhere();
      await this.#dispatchWindows();
    } catch (error) {
      this.#end.fail(error);
    }
    await this.#answersInFlight();
    clearInterval(looks);
    this.#slot.takeBack();
    try {
      await this.#judgement.judgeWhoIsHeld();
      await this.#troubles.leave();
      await this.#recorder.flush();
      await this.#books.giveBack();
    } catch (error) {
      this.#end.fail(error);
    }
    this.#run.stop.removeEventListener('abort', onStop);
    const held = this.#parts.firstHeld;
    if (this.#end.why !== undefined) return this.#end.why;
    if (held !== undefined) return { kind: 'held', fault: held.fault, detail: held.detail };
    const blocked = this.#books.devicesSetAside > 0 ? this.#hosts.firstBlocked : undefined;
    if (blocked === undefined) return { kind: 'exhausted' };
    if (await this.#troubles.isAlone()) return this.#end.why!;
    return { kind: 'exhausted', blockedMs: this.#hosts.msUntilFree(blocked) };
  }

  /** Only the devices that were brought forward; what they say decides whether the others are sent to. */
  async #askElsewhere(): Promise<void> {
    await this.#dispatchWindows();
    await this.#answersInFlight();
    this.#run.pending.endElsewhere();
    if (this.#end.why !== undefined) return;
    for (const part of this.#parts.all) {
      if (part.breaker.judgeElsewhere() === 'halt') await this.#judgement.haltForTokens(part);
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
    const { pool, claim, config, pending, giveUp } = this.#run;
    while (this.#end.why === undefined) {
      if (this.#troubles.mayBeAlone && (await this.#troubles.isAlone())) return undefined;
      // So a crash leaves at most three windows in doubt (outcomes not written, the one being sent, the next), the requests under way,
      // and the answers that the breaker holds.
      await this.#recorder.room(config.windowSize);
      this.#judgement.tellAcceptances();
      const devices = await retryDatabase(() => pending.peek(this.#windowSize), giveUp);
      if (devices.length === 0) return undefined;
      const hosts = this.#hosts.namesOf(devices);
      const { credential } = this.#run.provider;
      const positions: number[] = [];
      const deferredIds: number[] = [];
      for (const device of devices) {
        if (device.position === undefined) deferredIds.push(device.deviceId);
        else positions.push(device.position);
      }
      // A deferral must be in the books before its device is sent to again, or a crash would not know of the attempt.
      if (deferredIds.length > 0) await this.#recorder.flush();
      if (this.#end.why !== undefined) return undefined;
      const reservation = await retryDatabase(
        () => reserveWindow(pool, claim, { positions, deferredIds, providerScope: this.#scope, hosts, credential }),
        giveUp,
      );
      if (reservation.answer === 'go') {
        pending.take(reservation.granted);
        this.#reservedUntried += Math.min(positions.length, reservation.granted);
        const granted = devices.slice(0, reservation.granted);
        for (const trouble of reservation.hosts) this.#troubles.learn(trouble);
        // Whoever waits for room at a host that is blocked now is to be set aside.
        if (reservation.hosts.length > 0) this.#wakeUp();
        if (!this.#troubles.mayBeAlone || !(await this.#troubles.isAlone())) return { devices: granted };
        this.#books.noteUndispatched(granted, 0);
        return undefined;
      }
      await this.#holdBack(reservation);
    }
    return undefined;
  }

  async #holdBack(reservation: Exclude<Reservation, { answer: 'go' }>): Promise<void> {
    switch (reservation.answer) {
      case 'wait':
        if (this.#slot.mayWaitForQuota(reservation.waitMs)) await this.#slot.waitForQuota(reservation.waitMs);
        else {
          const waitMs = Math.max(reservation.waitMs, maxWaitHereMs);
          this.#end.stopFor({ kind: 'wait', waitMs, reason: 'rate limit' });
        }
        return;
      case 'expired':
        this.#end.stopFor({ kind: 'expired' });
        return;
      default:
        this.#end.stopFor({ kind: 'stopped', reason: reservation.answer });
    }
  }

  async #dispatch(window: Window): Promise<void> {
    const { devices } = window;
    for (let i = 0; i < devices.length; i++) {
      const device = devices[i]!;
      const host = this.#hosts.of(device);
      let mayGo = host === undefined || this.#hosts.hasRoom(host);
      while (this.#end.why === undefined && !mayGo) {
        if (this.#hosts.letOthersPass(host!, devices, i)) break;
        await new Promise<void>((resolve) => {
          this.#wakeDispatcher = resolve;
        });
        mayGo = this.#hosts.hasRoom(host!);
      }
      if (this.#end.why !== undefined) {
        this.#books.noteUndispatched(devices, i);
        return;
      }
      if (device.position !== undefined) this.#reservedUntried -= 1;
      if (mayGo) this.#send(device);
    }
  }

  #wakeUp(): void {
    this.#wakeDispatcher?.();
    this.#wakeDispatcher = undefined;
  }

  /** Half-way towards the number of devices that `windowMs` would have sent. */
  #adaptWindow(devices: number, elapsedMs: number): void {
    const fitting = (devices * windowMs) / Math.max(1, elapsedMs);
    const next = Math.round((this.#windowSize + fitting) / 2);
    this.#windowSize = Math.max(smallestWindow, Math.min(this.#run.config.windowSize, next));
  }

  #send(device: PendingDevice): void {
    const { address } = device;
    // Sent to once more, the phone may show it twice.
    if (device.reached === 'perhaps') device.doubts = Math.max(1, device.doubts);
    const { doubts } = device;
    const { inDoubtPolicy, config, provider, prepared, expiresAt, pending } = this.#run;
    if (address === undefined) {
      // Whoever is gone may still have got an earlier attempt.
      this.#books.recordUnsent(device, doubts > 0 ? 'unknown' : 'skipped', 'device_gone');
      return;
    }
    if (device.reached === 'certainly') {
      this.#books.recordUnsent(device, doubts > 0 ? 'unknown' : 'skipped', 'already_reached');
      return;
    }
    if (doubts > 0 && (inDoubtPolicy === 'skip' || doubts > config.maxDoubts)) {
      this.#books.recordUnsent(device, 'unknown', 'in_doubt');
      return;
    }
    const { deviceToken, apnsEnvironment } = address;
    const target: DeviceAddress = {
      deviceId: device.deviceId,
      deviceToken,
      apnsEnvironment,
      platform: address.platform,
    };
    const part = this.#parts.of(address);
    if (part.held !== undefined) {
      this.#setAside(device, part.held);
      return;
    }
    const { host } = part;
    if (this.#hosts.isBlocked(host)) {
      this.#books.postpone(device, this.#hosts.msUntilFree(host), host.reason, null);
      return;
    }
    // A window that waits for room can outlast the time to live: the next reservation stops the batch, this device has its end here.
    if (expiresAt !== null && pending.clock.nowMs() >= expiresAt.getTime()) {
      this.#books.recordUnsent(device, doubts > 0 ? 'unknown' : 'expired', doubts > 0 ? 'in_doubt' : null);
      return;
    }
    host.inFlight += 1;
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

  #settle(device: PendingDevice, part: Part, number: number, verdict: Verdict): void {
    const { host } = part;
    host.inFlight -= 1;
    this.#inFlight -= 1;
    this.answered += 1;
    this.#slot.noteAnswer();
    if (verdict.kind !== 'unsent') this.#troubles.noteReached(host, verdict.kind !== 'unanswered');
    this.#apply(device, part, number, verdict);
    while (this.#end.why === undefined && host.waiting.length > 0 && this.#hosts.hasRoom(host)) {
      this.#send(host.waiting.shift()!);
    }
    if (this.#inFlight === 0) this.#onDrained?.();
    if (this.#wakeDispatcher !== undefined && (this.#end.why !== undefined || this.#hosts.hasRoom(host))) {
      this.#wakeUp();
    }
  }

  #apply(device: PendingDevice, part: Part, number: number, verdict: Verdict): void {
    const { breaker, health } = part;
    switch (verdict.kind) {
      case 'accepted':
        health.note(number, 'well');
        this.#books.record(device, {
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
        this.#books.retire(device, verdict);
        this.#noteProof(part, breaker.noteProof());
        return;
      case 'rejected':
        health.note(number, 'well');
        if (
          verdict.isPayloadFault &&
          !breaker.isProven &&
          !(verdict.isOnePlatform && this.#parts.canGoOnWithout(part))
        ) {
          if (breaker.notePayloadFault({ device, verdict })) this.#judgement.haltForPayload(part, verdict);
          return;
        }
        this.#books.carryOut(device, decide(verdict, device, this.#books.rules()));
        this.#heed(part, breaker.noteAnswer());
        return;
      case 'later':
      case 'unanswered': {
        const decision = decide(verdict, device, this.#books.rules(this.#wereOthersTaken(device, health)));
        device.refusedAt = this.#run.pending.clock.instantIn(0);
        this.#books.carryOut(device, decision);
        if (health.note(number, signOf(verdict))) this.#troubles.holdBackAll(part, decision);
        if (verdict.kind === 'later') this.#heed(part, breaker.noteAnswer());
        return;
      }
      case 'unsent':
        this.#unsent(device, part, verdict);
        return;
      case 'misconfigured':
        health.note(number, 'well');
        this.#misconfigured(device, part, verdict);
    }
  }

  /** Since it was last refused. */
  #wereOthersTaken({ refusedAt }: PendingDevice, { msSinceWell }: ProviderHealth): boolean {
    return refusedAt !== null && this.#run.pending.clock.nowMs() - msSinceWell > refusedAt.getTime();
  }

  /** Somebody was taken: all may be sent to at full speed, and whoever refused the message did so for itself. */
  #noteProof(part: Part, call: BreakerCall): void {
    part.host.isProven = true;
    const { payloadFaults } = part.breaker;
    if (payloadFaults.length > 0) {
      for (const { device, verdict } of payloadFaults.splice(0)) {
        this.#books.carryOut(device, decide(verdict, device, this.#books.rules()));
      }
    }
    this.#heed(part, call);
  }

  #heed(part: Part, call: BreakerCall): void {
    switch (call) {
      case 'nothing':
        return;
      case 'askElsewhere':
        if (this.#run.pending.hasUntried || this.#reservedUntried > 0) {
          const { sizeOfElsewhere, suspects } = part.breaker;
          this.#end.stopFor({ kind: 'askElsewhere', devices: sizeOfElsewhere, suspects: suspects.length });
        } else if (part.breaker.suspects.length >= maxSuspects) this.#judgement.weighLater(part);
        return;
      case 'weigh':
        this.#judgement.weighLater(part);
    }
  }

  #misconfigured(device: PendingDevice, part: Part, verdict: MisconfiguredVerdict): void {
    const { claim } = this.#run;
    const { httpStatus, reason, fault, detail } = verdict;
    if (part.held !== undefined) {
      this.#setAside(device, part.held);
      return;
    }
    if (!part.breaker.noteFault(device, claim.accepted > 0) && httpStatus !== null) {
      // A key or a clock is no device's trouble, however few devices are left to show it.
      const isOurs = fault === 'credentials' || fault === 'clock';
      const scope = isOurs ? 'account' : 'device';
      const next = decide({ kind: 'later', httpStatus, reason, scope }, device, this.#books.rules());
      if (next.kind === 'defer' && !(isOurs && next.attempts >= this.#run.config.maxAttempts)) {
        this.#books.carryOut(device, next);
        return;
      }
      if (next.kind === 'record' && claim.accepted >= acceptedForOneFault) {
        this.#books.record(device, { ...next, outcome: next.outcome === 'failed' ? 'rejected' : next.outcome, reason });
        return;
      }
    }
    const isPartial = verdict.isOnePlatform === true || fault === 'environment';
    if (isPartial && (claim.accepted > 0 || part.breaker.isProven || this.#parts.canGoOnWithout(part))) {
      part.held = { fault, detail, reason, httpStatus };
      this.#setAside(device, part.held);
    } else {
      this.#end.haltFor(fault, detail);
      this.#books.putOff(device, 0, reason, httpStatus);
    }
  }

  #setAside(device: PendingDevice, { reason, httpStatus }: NonNullable<Part['held']>): void {
    this.#books.postpone(device, 0, reason, httpStatus);
  }

  /** No connection to be had: the device waits, and everybody else of its host. No attempt. */
  #unsent(device: PendingDevice, { host }: Part, verdict: UnsentVerdict): void {
    const decision = decide(verdict, device, this.#books.rules());
    if (decision.kind === 'record') {
      this.#books.record(device, decision);
      return;
    }
    this.#troubles.noteUnsent(host, verdict);
    this.#books.postpone(device, this.#hosts.msUntilFree(host), verdict.reason, null);
  }

  async #answersInFlight(): Promise<void> {
    const { giveUp } = this.#run;
    if (this.#inFlight === 0 || giveUp.aborted) return;
    await new Promise<void>((resolve) => {
      this.#onDrained = resolve;
      giveUp.addEventListener('abort', () => resolve(), { once: true });
    });
  }
}

function signOf(verdict: LaterVerdict | UnansweredVerdict): ProviderSign {
  if (verdict.kind === 'unanswered') return 'failure';
  return verdict.scope === 'device' ? 'well' : 'refusal';
}
