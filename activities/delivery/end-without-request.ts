import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import type { PayloadError } from '../../providers/provider.ts';
import type { PendingDevice } from './pending.ts';

/** The outcome of a device that is not sent to. */
export interface EndWithoutRequest {
  outcome: Outcome;
  reason: string | null;
}

/** Undefined: the device is to be sent to. Pure. */
export function endWithoutRequest(
  { address, reached, doubts }: Pick<PendingDevice, 'address' | 'reached' | 'doubts'>,
  inDoubtPolicy: InDoubtPolicy,
  maxDoubts: number,
): EndWithoutRequest | undefined {
  // A device that is gone, or whose phone has the message, may have got an earlier attempt besides.
  if (address === undefined) return { outcome: doubts > 0 ? 'unknown' : 'skipped', reason: 'device_gone' };
  if (reached === 'certainly') return { outcome: doubts > 0 ? 'unknown' : 'skipped', reason: 'already_reached' };
  if (doubts > 0 && (inDoubtPolicy === 'skip' || doubts > maxDoubts)) return { outcome: 'unknown', reason: 'in_doubt' };
  return undefined;
}

/** Of a message that waits for another attempt when a later one with the same collapse id comes. Pure. */
export function endByReplacement(doubts: number): EndWithoutRequest {
  return { outcome: doubts > 0 ? 'unknown' : 'cancelled', reason: 'replaced' };
}

/** Of a device whose message its provider can never take. Pure. */
export function endByPayload({ field, message }: PayloadError): EndWithoutRequest {
  return { outcome: 'rejected', reason: `${field}: ${message}` };
}

/** Of a device whose time is over when its turn comes. Pure. */
export function endByExpiry(doubts: number): EndWithoutRequest {
  return doubts > 0 ? { outcome: 'unknown', reason: 'in_doubt' } : { outcome: 'expired', reason: null };
}
