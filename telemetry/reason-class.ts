import type { Outcome } from '../domain/outcome.ts';

/** Why a device ended as it did, in few enough words for a label: the books have the provider's own. */
export type ReasonClass =
  /** The outcome says it all. */
  | 'none'
  /** The device token. */
  | 'token'
  /** The message itself. */
  | 'message'
  /** Credential, topic or project; or an answer that nobody foresaw. */
  | 'other'
  /** 429. */
  | 'quota'
  /** 5xx. */
  | 'provider'
  /** No answer. */
  | 'silence'
  /** Of `skipped`: no address any more; the phone has it by another device. */
  | 'gone'
  | 'reached'
  /** Of `cancelled`: by a later message. */
  | 'replaced';

/** What healthy devices may be told too, so that they stay alive: see `providers/apns/reasons.ts` and `providers/fcm/errors.ts`. */
const aboutTokens = new Set([
  ...['BadDeviceToken', 'DeviceTokenNotForTopic', 'MalformedDeviceToken', 'MissingDeviceToken', 'BadPath'],
  ...['SENDER_ID_MISMATCH', 'INVALID_ARGUMENT'],
]);

interface HowItEnded {
  outcome: Outcome;
  httpStatus: number | null;
  reason: string | null;
}

/** Pure. */
export function reasonClassOf({ outcome, httpStatus, reason }: HowItEnded): ReasonClass {
  switch (outcome) {
    case 'accepted':
      return 'none';
    case 'unregistered':
      return 'token';
    case 'rejected':
      if (aboutTokens.has(reason ?? '')) return 'token';
      return httpStatus === null || httpStatus === 400 || httpStatus === 413 ? 'message' : 'other';
    case 'failed':
    case 'expired':
      return httpStatus === null ? 'none' : refusalClassOf(httpStatus);
    case 'unknown':
      return httpStatus === null ? 'silence' : refusalClassOf(httpStatus);
    case 'skipped':
      return reason === 'already_reached' ? 'reached' : 'gone';
    case 'cancelled':
      return reason === 'replaced' ? 'replaced' : 'none';
  }
}

/** Why a device waits for another attempt; `unsent`: there was no request, `silence`: no answer. Pure. */
export function deferralClassOf({
  httpStatus,
  doubts,
}: {
  httpStatus: number | null;
  doubts: number;
}): 'quota' | 'provider' | 'other' | 'silence' | 'unsent' {
  if (httpStatus !== null) return refusalClassOf(httpStatus);
  return doubts > 0 ? 'silence' : 'unsent';
}

function refusalClassOf(httpStatus: number): 'quota' | 'provider' | 'other' {
  if (httpStatus === 429) return 'quota';
  return httpStatus >= 500 ? 'provider' : 'other';
}
