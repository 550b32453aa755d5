import type { ConfigurationFault, RejectedVerdict, UnregisteredVerdict } from '../providers/provider.ts';
import type { PendingDevice } from './pending-devices.ts';

/** Answers that are judged together. */
const sampleSize = 200;
/** So many suspicious answers, and so large a share of the sample, are a configuration fault and no list of dead tokens. */
const minSuspicious = 10;
const maxSuspiciousShare = 0.2;
/** So many refusals of the payload, and nobody who took it, are a fault of the message. */
const minPayloadFaults = 5;
/** So many configuration faults in one sample halt a send whose configuration has worked before. */
const minFaults = 3;

export interface Held {
  device: PendingDevice;
  verdict: UnregisteredVerdict | RejectedVerdict;
}

export type Judgement =
  /** Not enough is known: the answer is held, nothing is recorded. */
  | { kind: 'hold' }
  /** These answers mean what they say. */
  | { kind: 'release'; held: Held[] }
  /** The send is misconfigured: nobody who is held is at fault. */
  | { kind: 'halt'; fault: ConfigurationFault | 'payload'; detail: string; held: Held[] };

const hold: Judgement = { kind: 'hold' };

/**
 * Tells a list with dead tokens from a send with the wrong environment, topic, project or payload: the provider gives the
 * same answers. Suspicious answers are held until their sample is judged (`providers.md`: never prune on a mass of them).
 */
export class Breaker {
  #accepted = 0;
  #sampleAnswered = 0;
  #faults = 0;
  #suspicious: Held[] = [];
  #payloadFaults: Held[] = [];

  /** Whether anything shows by now that the configuration works; until then only a handful is sent at once. */
  get isProven(): boolean {
    return this.#accepted > 0;
  }

  get held(): number {
    return this.#suspicious.length + this.#payloadFaults.length;
  }

  /** An answer that says nothing about the configuration, or that proves it right. */
  noteAnswer(provesConfiguration: boolean): Judgement {
    this.#count(provesConfiguration);
    if (provesConfiguration && this.#payloadFaults.length > 0) {
      const held = this.#payloadFaults;
      this.#payloadFaults = [];
      return { kind: 'release', held };
    }
    return this.#judgeSample();
  }

  /**
   * A configuration fault in the provider's own words. True: halt. The first one decides, unless others were taken by the same
   * configuration: then a single one is a stray of some server or proxy, and the device is tried again.
   */
  noteFault(): boolean {
    this.#count(false);
    this.#faults += 1;
    return this.#accepted === 0 || this.#faults >= minFaults;
  }

  noteSuspicious(device: PendingDevice, verdict: UnregisteredVerdict): Judgement {
    this.#suspicious.push({ device, verdict });
    this.#count(false);
    if (this.#suspicious.length >= minSuspicious && this.#accepted === 0) return this.#haltForTokens();
    return this.#judgeSample();
  }

  notePayloadFault(device: PendingDevice, verdict: RejectedVerdict): Judgement {
    this.#count(false);
    if (this.#accepted > 0) return { kind: 'release', held: [{ device, verdict }] };
    this.#payloadFaults.push({ device, verdict });
    if (this.#payloadFaults.length < minPayloadFaults) return hold;
    const held = this.#payloadFaults;
    this.#payloadFaults = [];
    return {
      kind: 'halt',
      fault: 'payload',
      detail: `The first ${held.length} devices refused the message itself: ${verdict.reason}${verdict.detail ? `, ${verdict.detail}` : ''}.`,
      held: [...held, ...this.#suspicious.splice(0)],
    };
  }

  /** Nothing more will be answered: what is still held is judged by what is known. */
  finish(): Judgement {
    const share = this.#suspicious.length / Math.max(1, this.#sampleAnswered);
    if (this.#suspicious.length >= minSuspicious && share > maxSuspiciousShare) return this.#haltForTokens();
    return { kind: 'release', held: [...this.#suspicious.splice(0), ...this.#payloadFaults.splice(0)] };
  }

  #count(provesConfiguration: boolean): void {
    this.#sampleAnswered += 1;
    if (provesConfiguration) this.#accepted += 1;
  }

  #judgeSample(): Judgement {
    if (this.#sampleAnswered < sampleSize) return hold;
    if (
      this.#suspicious.length >= minSuspicious &&
      this.#suspicious.length / this.#sampleAnswered > maxSuspiciousShare
    ) {
      return this.#haltForTokens();
    }
    this.#sampleAnswered = 0;
    this.#faults = 0;
    return { kind: 'release', held: this.#suspicious.splice(0) };
  }

  #haltForTokens(): Judgement {
    const held = this.#suspicious.splice(0);
    const reasons = new Map<string, number>();
    for (const { verdict } of held) reasons.set(verdict.reason, (reasons.get(verdict.reason) ?? 0) + 1);
    const [reason] = [...reasons].sort((a, b) => b[1] - a[1])[0]!;
    const { fault, check } = suspectOf(reason);
    return {
      kind: 'halt',
      fault,
      detail: `${held.length} of the last ${this.#sampleAnswered} answers were ${reason}: ${check} No device was retired.`,
      held: [...held, ...this.#payloadFaults.splice(0)],
    };
  }
}

function suspectOf(reason: string): { fault: ConfigurationFault; check: string } {
  switch (reason) {
    case 'DeviceTokenNotForTopic':
      return { fault: 'topic', check: 'check APNS_TOPIC against the bundle id of the app.' };
    case 'SENDER_ID_MISMATCH':
      return { fault: 'project', check: 'check that the service account belongs to the Firebase project of the app.' };
    default:
      return {
        fault: 'environment',
        check: 'check that the tokens belong to this APNs environment (production or sandbox) or Firebase project.',
      };
  }
}
