import type { ConfigurationFault, RejectedVerdict, UnregisteredVerdict } from '../../providers/provider.ts';
import type { PendingDevice } from './pending-devices.ts';

/** Answers that are judged together. */
const sampleSize = 200;
/** So many suspicious answers, and so large a share of the sample, are asked about elsewhere in the audience … */
const minSuspicious = 10;
const maxSuspiciousShare = 0.2;
const manyElsewhere = 40;
/** … and so many, while nobody at all was accepted. */
const minUnproven = 5;
const fewElsewhere = 5;
/** So many refusals of the payload, and nobody who took it, are a fault of the message. */
const minPayloadFaults = 5;
/** So many devices in a row that meet a configuration fault halt a send whose configuration has worked before. */
const minFaultyDevices = 3;

export interface Suspect {
  device: PendingDevice;
  verdict: UnregisteredVerdict;
}

export interface PayloadFault {
  device: PendingDevice;
  verdict: RejectedVerdict;
}

/** What the answers so far ask for. */
export type BreakerCall =
  | 'nothing'
  /** The sample is full and ordinary: whoever is suspected can be judged by the evidence. */
  | 'weigh'
  /** Either a list with dead tokens or a wrong configuration: devices elsewhere in the audience are to be asked. */
  | 'askElsewhere';

/**
 * The answers of one configuration within one run of a batch. Tells a list with dead tokens from a send with the wrong
 * environment, topic, project or payload: the provider gives the same answers. What is suspicious is held until it is judged
 * (Apple: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns, never to
 * retry `BadDeviceToken`; but a token of the other environment gets it too).
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

  /** Whether anything shows by now that the configuration works; until then only a handful is sent at once. */
  get isProven(): boolean {
    return this.#proofs > 0;
  }

  /** The answers that follow are those of devices elsewhere in the audience, until `judgeElsewhere`. `before`: suspects that made us ask. */
  askElsewhere(before: number): void {
    this.#elsewhere = { before, proofs: 0, answered: 0, suspicious: 0 };
  }

  /** `halt` when nobody elsewhere was accepted, or as many are suspicious there. */
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

  /** An answer that nobody gets with a wrong configuration. */
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
   * A configuration fault in the provider's own words. True: halt. The first one decides, unless others were taken by the same
   * configuration: then a single one is a stray of some server or proxy, or the trouble of one device, which is tried again.
   */
  noteFault(device: PendingDevice, hasAcceptedBefore: boolean): boolean {
    this.#sampleAnswered += 1;
    this.#faulty.add(device.deviceId);
    return !(this.isProven || hasAcceptedBefore) || this.#faulty.size >= minFaultyDevices;
  }

  /** True: the message itself must be at fault. */
  notePayloadFault(fault: PayloadFault): boolean {
    this.#sampleAnswered += 1;
    this.payloadFaults.push(fault);
    return !this.isProven && this.payloadFaults.length >= minPayloadFaults;
  }
}

/** What the commonest reason among the suspects speaks of. */
export function suspicionOf(suspects: Suspect[]): { reason: string; fault: ConfigurationFault; check: string } {
  const reasons = new Map<string, number>();
  for (const { verdict } of suspects) reasons.set(verdict.reason, (reasons.get(verdict.reason) ?? 0) + 1);
  const [reason] = [...reasons].sort((a, b) => b[1] - a[1])[0] ?? [''];
  switch (reason) {
    case 'DeviceTokenNotForTopic':
      return { reason, fault: 'topic', check: 'check APNS_TOPIC against the bundle id of the app.' };
    case 'SENDER_ID_MISMATCH':
      return {
        ...{ reason, fault: 'project' },
        check: 'check that the service account belongs to the Firebase project of the app.',
      };
    default:
      return {
        ...{ reason, fault: 'environment' },
        check: 'check that the tokens belong to this APNs environment (production or sandbox) or Firebase project.',
      };
  }
}
