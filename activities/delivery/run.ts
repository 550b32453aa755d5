import type { Claim } from '../../db/batches.ts';
import type { Notification } from '../../domain/notification.ts';
import type { PreparedMessage, PushProvider } from '../../providers/provider.ts';
import type { ActivityDeps } from '../activities.ts';
import type { PendingDevices } from './pending-devices.ts';

/** What one run over a claimed batch is given. */
export interface Run
  extends Pick<ActivityDeps, 'db' | 'pool' | 'overload' | 'providerHosts' | 'slots' | 'config'>,
    Pick<Notification, 'appId' | 'expiresAt' | 'inDoubtPolicy'> {
  claim: Claim;
  provider: PushProvider;
  prepared: PreparedMessage;
  pending: PendingDevices;
  /** How many called for `pending.askElsewhere`. */
  suspectsBefore: number;
  random: () => number;
  /** For people who look at Temporal's UI; a run adds to it. */
  progress: { dispatched: number; answered: number };
  /** Aborted: dispatch nothing more; what is under way is waited for and recorded. */
  stop: AbortSignal;
  /** Aborted: answers and PostgreSQL are no longer waited for either. */
  giveUp: AbortSignal;
}
