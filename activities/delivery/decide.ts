import { exhausted } from '../../domain/exhausted.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import { type RetryPolicy, retryDelayMs } from '../../domain/retry-policy.ts';
import type {
  LaterVerdict,
  RejectedVerdict,
  UnansweredVerdict,
  UnregisteredVerdict,
  UnsentVerdict,
} from '../../providers/provider.ts';

/** What is known of a device before the verdict. */
export interface Tries {
  /** Attempts so far that the provider answered or may have processed. */
  attempts: number;
  /** How many of them ended through no fault of the device. */
  excused: number;
  /** How many of them ended without an answer. */
  doubts: number;
}

/** Why a device waits or ends so, in the provider's words or ours. */
export interface Cause {
  reason: string;
  /** Null or undefined: no request was answered. */
  httpStatus?: number | null;
}

export interface DeliveryRules {
  retry: RetryPolicy;
  /** Devices without an answer are sent to so many times more. */
  maxDoubts: number;
  inDoubtPolicy: InDoubtPolicy;
  /** Until the notification expires; undefined: it does not. */
  msLeft: number | undefined;
  /** 0 up to 1. */
  random: number;
  /** The provider has taken others since it last refused this device. */
  othersTakenSince: boolean;
}

export type Decision = Tries & { reason: string | null; httpStatus: number | null } & (
    | { kind: 'record'; outcome: Outcome; providerMessageId?: string | undefined }
    | { kind: 'defer'; waitMs: number }
  );

/** Verdicts but acceptance that speak of the device. Those that may speak of the configuration come here once that is judged. */
export type DeviceVerdict = UnregisteredVerdict | RejectedVerdict | LaterVerdict | UnansweredVerdict | UnsentVerdict;

/** What happens to a device after a verdict. Pure. */
export function decide(verdict: DeviceVerdict, device: Tries, rules: DeliveryRules): Decision {
  const { attempts, excused, doubts } = device;
  switch (verdict.kind) {
    case 'unregistered':
      return { kind: 'record', outcome: 'unregistered', ...words(verdict), attempts: attempts + 1, excused, doubts };
    case 'rejected': {
      // The person who corrects the message needs to know what is wrong with it.
      const reason = verdict.isPayloadFault ? (verdict.detail ?? verdict.reason) : verdict.reason;
      return {
        kind: 'record',
        outcome: 'rejected',
        ...words(verdict),
        reason,
        // Refused before any request.
        attempts: attempts + (verdict.httpStatus === null ? 0 : 1),
        excused,
        doubts,
      };
    }
    case 'later': {
      const isOwnTrouble = attempts > excused || rules.othersTakenSince;
      const isExcused = verdict.scope === 'account' || (verdict.scope === 'provider' && !isOwnTrouble);
      const tries = { attempts: attempts + 1, excused: excused + (isExcused ? 1 : 0), doubts };
      if (isSpent(tries, rules)) {
        return {
          kind: 'record',
          outcome: 'failed',
          ...words(verdict),
          reason: `retry_exhausted: ${verdict.reason}`,
          ...tries,
        };
      }
      return tryAgain(verdict, tries, verdict.afterMs, rules);
    }
    case 'unanswered': {
      // Silence may hide a delivery each time. An error that was answered may too, but rarely: it marks the device once, and
      // the limit on attempts ends it.
      const tries = {
        ...{ attempts: attempts + 1, excused },
        doubts: verdict.httpStatus === null ? doubts + 1 : Math.max(1, doubts),
      };
      if (rules.inDoubtPolicy === 'skip' || tries.doubts > rules.maxDoubts || isSpent(tries, rules)) {
        return { kind: 'record', outcome: 'unknown', ...words(verdict), ...tries };
      }
      return tryAgain(verdict, tries, verdict.afterMs ?? rules.retry.baseMs, rules);
    }
    case 'unsent':
      return orExpire({ kind: 'defer', waitMs: verdict.afterMs, ...words(verdict), attempts, excused, doubts }, rules);
    default:
      return exhausted(verdict);
  }
}

function isSpent({ attempts, excused }: Tries, { retry }: DeliveryRules): boolean {
  return attempts - excused >= retry.maxAttempts;
}

function tryAgain(
  verdict: LaterVerdict | UnansweredVerdict,
  tries: Tries,
  askedMs: number | undefined,
  rules: DeliveryRules,
): Decision {
  const waitMs = retryDelayMs(rules.retry, tries.attempts, askedMs, rules.random);
  return orExpire({ kind: 'defer', waitMs, ...words(verdict), ...tries }, rules);
}

/** A wait that would end after the expiry is not waited for. */
export function orExpire(decision: Decision & { kind: 'defer' }, { msLeft }: Pick<DeliveryRules, 'msLeft'>): Decision {
  const { waitMs, ...rest } = decision;
  if (msLeft === undefined || waitMs < msLeft) return decision;
  return { ...rest, kind: 'record', outcome: decision.doubts > 0 ? 'unknown' : 'expired' };
}

function words({ reason, httpStatus = null }: Cause): Required<Cause> {
  return { reason, httpStatus };
}
