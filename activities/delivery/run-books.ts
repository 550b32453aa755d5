import type { Retirement } from '../../db/devices.ts';
import { retryDatabase } from '../../db/retry-database.ts';
import { storableReason } from '../../domain/outside-text.ts';
import type { RejectedVerdict, UnregisteredVerdict } from '../../providers/provider.ts';
import { type Cause, type Decision, type DeliveryRules, decide, orExpire } from './decide.ts';
import type { EndWithoutRequest } from './end-without-request.ts';
import type { Content, PendingDevice, Place } from './pending.ts';
import type { Recorder } from './recorder.ts';
import type { Run } from './run.ts';

/** What becomes of the devices that one run has reserved: an outcome, a deferral, or given back as they were. */
export class RunBooks {
  readonly #run: Run;
  readonly #recorder: Recorder;
  /** The earliest fresh device that was reserved and not dispatched; with the deferred ones it is given back at the end. */
  #undispatched: { position: number | undefined; deferred: Place[] } = { position: undefined, deferred: [] };
  /** Devices that wait because of their platform or host. */
  devicesSetAside = 0;

  constructor(run: Run, recorder: Recorder) {
    this.#run = run;
    this.#recorder = recorder;
  }

  rules({ inDoubtPolicy, expiresAt }: Content, othersTakenSince = false): DeliveryRules {
    const { config, random, pending } = this.#run;
    return {
      retry: { baseMs: config.retryBaseMs, maxMs: config.retryMaxMs, maxAttempts: config.maxAttempts },
      maxDoubts: config.maxDoubts,
      inDoubtPolicy,
      msLeft: expiresAt === null ? undefined : expiresAt.getTime() - pending.clock.nowMs(),
      random: random(),
      othersTakenSince,
    };
  }

  /** As if it had not been sent to. */
  putOff(device: PendingDevice, waitMs: number, { reason, httpStatus = null }: Cause): void {
    const { attempts, excused, doubts } = device;
    const decision = { kind: 'defer', waitMs, reason, httpStatus, attempts, excused, doubts } as const;
    this.carryOut(device, orExpire(decision, this.rules(device.content)));
  }

  retire(device: PendingDevice, verdict: UnregisteredVerdict): void {
    const { deviceId, address, readAt } = device;
    this.carryOut(device, decide(verdict, device, this.rules(device.content)), {
      deviceId,
      deviceToken: address!.deviceToken,
      invalidAt: verdict.invalidAt !== undefined && verdict.invalidAt < readAt ? verdict.invalidAt : readAt,
      reason: storableReason(verdict.reason),
    });
  }

  /** The provider does not take the message for it, and nothing more is concluded. */
  reject(device: PendingDevice, verdict: RejectedVerdict | UnregisteredVerdict): void {
    const rejected = { ...verdict, kind: 'rejected', isPayloadFault: false } as const;
    this.carryOut(device, decide(rejected, device, this.rules(device.content)));
  }

  recordWithoutRequest(device: PendingDevice, end: EndWithoutRequest): void {
    const { attempts, excused, doubts } = device;
    this.record(device, { kind: 'record', ...end, httpStatus: null, attempts, excused, doubts });
  }

  carryOut(device: PendingDevice, decision: Decision, retirement?: Retirement): void {
    if (decision.kind === 'record') {
      this.record(device, decision, retirement);
      return;
    }
    const { waitMs, reason, httpStatus, attempts, excused, doubts } = decision;
    const deferral = {
      deviceId: device.deviceId,
      position: device.position,
      notBefore: this.#run.pending.clock.instantIn(waitMs),
      ...{ attempts, excused, doubts, httpStatus },
      refusedAt: device.refusedAt,
      reason: storableReason(reason ?? ''),
    };
    this.#recorder.defer(deferral);
    this.#run.pending.defer(deferral);
    this.#run.pending.noteDone(device);
  }

  record(device: PendingDevice, decision: Decision & { kind: 'record' }, retirement?: Retirement): void {
    const { outcome, reason, httpStatus, providerMessageId, attempts, doubts } = decision;
    const { keepMessageIds } = this.#run.config;
    this.#recorder.add(
      device,
      {
        outcome,
        reason: reason === null ? null : storableReason(reason),
        httpStatus,
        attempts,
        inDoubt: doubts > 0,
      },
      { providerMessageId: keepMessageIds ? providerMessageId : undefined, retirement },
    );
    this.#run.pending.noteDone(device);
  }

  /**
   * Sets a device aside for a later run: it was not sent to by this one, or provably in vain. A fresh one is deferred, one that was
   * deferred before is given back. In a lane, which has no later run, it waits as any other.
   */
  postpone(device: PendingDevice, waitMs: number, cause: Cause): void {
    if (this.#run.pending.isEndless) {
      this.putOff(device, waitMs, cause);
      return;
    }
    const { reason, httpStatus = null } = cause;
    this.devicesSetAside += 1;
    if (device.wasDeferred) {
      this.#undispatched.deferred.push(device);
      return;
    }
    const { deviceId, position, attempts, excused, doubts, refusedAt } = device;
    const notBefore = this.#run.pending.clock.instantIn(waitMs);
    this.#recorder.defer({
      ...{ deviceId, position, notBefore, attempts, excused, doubts, refusedAt, httpStatus },
      reason: storableReason(reason),
    });
  }

  noteUndispatched(devices: PendingDevice[], from: number): void {
    for (const device of devices.slice(from)) {
      if (device.wasDeferred) this.#undispatched.deferred.push(device);
      else if (this.#undispatched.position === undefined || device.position < this.#undispatched.position) {
        this.#undispatched.position = device.position;
      }
    }
  }

  async giveBack(): Promise<void> {
    const { books, giveUp } = this.#run;
    const { position, deferred } = this.#undispatched;
    if (position === undefined && deferred.length === 0) return;
    await retryDatabase(() => books.giveBack(this.#undispatched), giveUp);
  }
}
