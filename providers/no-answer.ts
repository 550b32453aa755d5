import type { NotProcessed, Unanswered } from '../http2/exchange.ts';
import type { LaterVerdict, MisconfiguredVerdict, UnansweredVerdict, UnsentVerdict } from './provider.ts';

/** Verdicts on requests that got no whole answer, the same for every provider that speaks HTTP/2. */

/** How soon to try again when nothing could be sent; the pool has its own, growing wait between connection attempts. */
const unsentAfterMs = { refused: 1_000, goaway: 1_000, deadline: 1_000, connect_failed: 5_000, closed: 1_000 } as const;

export function verdictOnUnsent({ cause, evidence }: NotProcessed): UnsentVerdict | MisconfiguredVerdict {
  const { errno } = evidence;
  // TLS alerts about our client certificate (RFC 8446 §6.2): waiting does not help.
  if (errno !== undefined && /ALERT_(BAD_CERTIFICATE|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|UNKNOWN_CA)/.test(errno)) {
    return {
      kind: 'misconfigured',
      httpStatus: null,
      reason: errno,
      fault: 'credentials',
      detail: 'The provider refused our certificate while the connection was being made. It may be expired or revoked.',
    };
  }
  const reason = errno === undefined ? cause : `${cause} ${errno}`;
  return { kind: 'unsent', reason, afterMs: unsentAfterMs[cause] };
}

/** The notification's time was up before a request could be written. */
export const expired: UnsentVerdict = Object.freeze({ kind: 'unsent', reason: 'expired', afterMs: 0 });

export function verdictOnUnanswered({ cause, evidence }: Unanswered): UnansweredVerdict {
  const { errno } = evidence;
  return { kind: 'unanswered', httpStatus: null, reason: errno === undefined ? cause : `${cause} ${errno}` };
}

/** Refused, but the reason was lost on the way: certainly not delivered, and the next attempt will tell the reason. */
export function verdictOnCutAnswer(httpStatus: number): LaterVerdict {
  return { kind: 'later', httpStatus, reason: `http_${httpStatus}_cut`, scope: 'provider' };
}
