import type { PushProvider } from '../../providers/provider.ts';
import type { ActivityDeps } from '../activities.ts';
import type { ClaimedBooks } from './claimed-books.ts';
import type { Pending } from './pending.ts';
import type { Slot } from './slot.ts';

/** What one run over a claimed batch or lane is given. */
export interface Run extends Pick<ActivityDeps, 'db' | 'overload' | 'providerHosts' | 'config' | 'tracing'> {
  appId: number;
  /** Its name. */
  app: string;
  books: ClaimedBooks;
  provider: PushProvider;
  pending: Pending;
  slot: Slot;
  /** Devices of the same send that this provider has accepted before; of a lane none are counted. */
  acceptedBefore: number;
  /** How many called for `PendingDevices.askElsewhere`. */
  suspectsBefore: number;
  random: () => number;
  /** For people who look at Temporal's UI; a run adds to it. */
  progress: { dispatched: number; answered: number };
  /** Aborted: dispatch nothing more; what is under way is waited for and recorded. */
  stop: AbortSignal;
  /** Aborted: answers and PostgreSQL are no longer waited for either. */
  giveUp: AbortSignal;
}
