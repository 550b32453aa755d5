import type { RejectedVerdict, UnregisteredVerdict } from '../../providers/provider.ts';
import type { PendingDevice } from './pending.ts';

/** Answers that are judged together. */
const sampleSize = 200;
/** So many suspicious answers, and so large a share of the sample, are asked about elsewhere in the audience … */
const minSuspicious = 10;
const maxSuspiciousShare = 0.2;
const manyElsewhere = 40;
/** … and so many, while no device at all was accepted. */
const minUnproven = 5;
const fewElsewhere = 5;
/** So many refusals of the payload, and no device that took it, are a fault of the message. */
const minPayloadFaults = 5;
/** So many devices in a row that meet a configuration fault halt a send whose configuration has worked before. */
const minFaultyDevices = 3;

export interface Suspect {
  device: PendingDevice;
  verdict: UnregisteredVerdict;
}

interface PayloadFault {
  device: PendingDevice;
  verdict: RejectedVerdict;
}

/** What the answers so far ask for. */
export type BreakerCall =
  | 'nothing'
  /** The sample is full and ordinary: its suspects can be judged by the evidence. */
  | 'weigh'
  /** Either a list with dead tokens or a wrong configuration: devices elsewhere in the audience are to be asked. */
  | 'askElsewhere';

/**
 * The answers of one configuration within one run of a batch. Tells a list with dead tokens from a send with the wrong
 * environment, topic, project or payload: the provider gives the same answers. Apple says never to retry `BadDeviceToken`
 * (https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns), but a healthy token
 * of the other environment gets it too. So suspects and payload faults are held here, without an outcome, until they are judged.
 */
export class Breaker {
  /** Accepted and not yet told to the evidence. */
  acceptedUnkept = 0;
  suspects: Suspect[] = [];
  payloadFaults: PayloadFault[] = [];
  #proofs = 0;
  #sampleAnswered = 0;
  /** Devices that met a configuration fault since the last proof. */
  readonly #faulty = new Set<number>();
  #elsewhere: { before: number; proofs: number; answered: number; suspicious: number } | undefined;

  /** Whether an answer of this run shows that the configuration works. */
  get isProven(): boolean {
    return this.#proofs > 0;
  }

  /** Until `judgeElsewhere` the answers are those of devices elsewhere in the audience. `before`: suspects of the run before. */
  askElsewhere(before: number): void {
    this.#elsewhere = { before, proofs: 0, answered: 0, suspicious: 0 };
  }

  /** `halt` when no device elsewhere was accepted, or as large a share of them is suspicious. */
  judgeElsewhere(): 'nothing' | 'halt' {
    if (!this.#elsewhere) return 'nothing';
    const { before, proofs, answered, suspicious } = this.#elsewhere;
    this.#elsewhere = undefined;
    this.#sampleAnswered = 0;
    if (suspicious === 0 || before + suspicious < minSuspicious) return 'nothing';
    if (proofs === 0) return 'halt';
    return answered > fewElsewhere && suspicious > maxSuspiciousShare * answered ? 'halt' : 'nothing';
  }

  noteAccepted(): BreakerCall {
    this.acceptedUnkept += 1;
    return this.noteProof();
  }

  /** An answer that no device gets with a wrong configuration. */
  noteProof(): BreakerCall {
    this.#proofs += 1;
    if (this.#elsewhere) this.#elsewhere.proofs += 1;
    if (this.#faulty.size > 0) this.#faulty.clear();
    return this.noteAnswer();
  }

  /** An answer that says nothing about the configuration. */
  noteAnswer(): BreakerCall {
    this.#sampleAnswered += 1;
    if (this.#elsewhere) {
      this.#elsewhere.answered += 1;
      return 'nothing';
    }
    if (this.#sampleAnswered < sampleSize) return 'nothing';
    const share = this.suspects.length / this.#sampleAnswered;
    this.#sampleAnswered = 0;
    if (this.suspects.length >= minSuspicious && share > maxSuspiciousShare) return 'askElsewhere';
    return this.suspects.length > 0 ? 'weigh' : 'nothing';
  }

  noteSuspicious(suspect: Suspect): BreakerCall {
    this.suspects.push(suspect);
    if (this.#elsewhere) this.#elsewhere.suspicious += 1;
    const call = this.noteAnswer();
    if (call === 'nothing' && !this.#elsewhere && !this.isProven && this.suspects.length >= minUnproven) {
      return 'askElsewhere';
    }
    return call;
  }

  /** How many devices elsewhere give a fair picture. */
  get sizeOfElsewhere(): number {
    return this.isProven ? manyElsewhere : fewElsewhere;
  }

  /**
   * A device meets a configuration fault in the provider's own words. The first one is believed, unless other devices were taken
   * by the same configuration: then few in a row are strays of some server or proxy, or the trouble of one device.
   * @returns true for a stray
   */
  noteFault(deviceId: number, hasAcceptedBefore: boolean): boolean {
    this.#sampleAnswered += 1;
    this.#faulty.add(deviceId);
    return (this.isProven || hasAcceptedBefore) && this.#faulty.size < minFaultyDevices;
  }

  /** @returns true when the message itself must be at fault */
  notePayloadFault(fault: PayloadFault): boolean {
    this.#sampleAnswered += 1;
    this.payloadFaults.push(fault);
    return !this.isProven && this.payloadFaults.length >= minPayloadFaults;
  }
}
