import type { MisconfiguredVerdict } from '../../providers/provider.ts';
import { type Decision, type DeliveryRules, decide, type Tries } from './decide.ts';

/** One device that meets a configuration fault for ever is at fault itself when so many others were accepted. */
const acceptedForOneFault = 9;

/** What is known of the configuration when a device meets a fault of it. */
export interface FaultFacts {
  /** Others were taken by the same configuration, and few meet the fault: some server's stray, or the trouble of this device. */
  isStray: boolean;
  /** Devices of the send that the provider has accepted. */
  accepted: number;
  /** An answer of this run shows that the configuration works, or did. */
  isProven: boolean;
  /** The batch has devices that the fault does not concern, where it is one of a platform or environment. */
  canGoOnWithout: boolean;
  rules: DeliveryRules;
}

export type FaultDecision =
  /** The trouble of this device: tried again, or its end. */
  | Decision
  /** The devices of its platform or environment wait, while the others are sent to. */
  | { kind: 'setPartAside' }
  | { kind: 'halt' };

/** What a configuration fault leads to. Pure. */
export function decideFault(verdict: MisconfiguredVerdict, device: Tries, facts: FaultFacts): FaultDecision {
  const { fault, httpStatus, reason } = verdict;
  const { isStray, accepted, isProven, canGoOnWithout, rules } = facts;
  if (isStray && httpStatus !== null) {
    // A key or a clock is no device's trouble, however few devices are left to show it.
    const isOurs = fault === 'credentials' || fault === 'clock';
    const scope = isOurs ? 'account' : 'device';
    const decision = decide({ kind: 'later', httpStatus, reason, scope }, device, rules);
    if (decision.kind === 'defer' && !(isOurs && decision.attempts >= rules.retry.maxAttempts)) return decision;
    if (decision.kind === 'record' && accepted >= acceptedForOneFault) {
      return { ...decision, outcome: decision.outcome === 'failed' ? 'rejected' : decision.outcome, reason };
    }
  }
  const isPartial = verdict.isOnePlatform === true || fault === 'environment';
  const isAnyOtherLeft = accepted > 0 || isProven || canGoOnWithout;
  return isPartial && isAnyOtherLeft ? { kind: 'setPartAside' } : { kind: 'halt' };
}
