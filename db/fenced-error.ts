import type { Claim } from './batches.ts';

/** The batch belongs to a later claim: nothing was written and nothing may be sent. */
export class FencedError extends Error {
  readonly code = 'fenced';

  constructor(claim: Claim) {
    super(`batch ${claim.seq} of notification ${claim.notificationId} was claimed again after fence ${claim.fence}`);
    this.name = 'FencedError';
  }
}
