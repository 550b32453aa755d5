import type { Claim } from './batches.ts';
import type { LaneClaim } from './lanes.ts';

/** The batch or lane belongs to a later claim: nothing was written and nothing may be sent. */
export class FencedError extends Error {
  readonly code = 'fenced';

  constructor(claim: Pick<Claim, 'notificationId' | 'seq' | 'fence'> | Pick<LaneClaim, 'laneId' | 'fence'>) {
    const what =
      'laneId' in claim ? `lane ${claim.laneId}` : `batch ${claim.seq} of notification ${claim.notificationId}`;
    super(`${what} was claimed again after fence ${claim.fence}`);
    this.name = 'FencedError';
  }
}
