import type { Outcome } from '../domain/outcome.ts';

/**
 * Why a device ended as it did, in few enough words for a label: the books have the provider's own.
 * - `none`: the outcome says it all. - `token`: the device token. - `message`: the message itself. - `quota`: 429. - `provider`: 5xx.
 * - `silence`: no answer. - `gone`, `reached`, of `skipped`: no address any more; the phone has it by another device.
 * - `replaced`, of `cancelled`: by a later message. - `other`: credential, topic or project, or an answer that nobody foresaw.
 */
export const reasonClasses = [
  'none',
  'token',
  'message',
  'quota',
  'provider',
  'silence',
  'gone',
  'reached',
  'replaced',
  'other',
] as const;
type ReasonClass = (typeof reasonClasses)[number];

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

/** Why a device waits for another attempt; `unsent`: there was no request, `silence`: no answer. */
export const deferralClasses = ['quota', 'provider', 'other', 'silence', 'unsent'] as const;

/** Pure. */
export function deferralClassOf({
  httpStatus,
  doubts,
}: {
  httpStatus: number | null;
  doubts: number;
}): (typeof deferralClasses)[number] {
  if (httpStatus !== null) return refusalClassOf(httpStatus);
  return doubts > 0 ? 'silence' : 'unsent';
}

function refusalClassOf(httpStatus: number): 'quota' | 'provider' | 'other' {
  if (httpStatus === 429) return 'quota';
  return httpStatus >= 500 ? 'provider' : 'other';
}
