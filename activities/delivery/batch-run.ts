import type { Kysely } from 'kysely';
import type pg from 'pg';
import type { Claim } from '../../db/batches.ts';
import type { Database } from '../../db/schema.ts';
import type { WorkerConfig } from '../../domain/config.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { PreparedMessage, PushProvider } from '../../providers/provider.ts';
import type { SendingSlots } from '../sending-slots.ts';
import type { OverloadWatch } from './overload-watch.ts';
import type { PendingDevices } from './pending-devices.ts';
import type { ProviderHosts } from './provider-hosts.ts';

/** What one run over a claimed batch is given. */
export interface BatchRun {
  db: Kysely<Database>;
  pool: pg.Pool;
  claim: Claim;
  appId: number;
  expiresAt: Date | null;
  inDoubtPolicy: InDoubtPolicy;
  provider: PushProvider;
  prepared: PreparedMessage;
  pending: PendingDevices;
  /** How many called for `pending.askElsewhere`. */
  suspectsBefore: number;
  overload: OverloadWatch;
  providerHosts: ProviderHosts;
  slots: SendingSlots;
  config: WorkerConfig;
  random: () => number;
  /** Aborted: dispatch nothing more; what is under way is waited for and recorded. */
  stop: AbortSignal;
  /** Aborted: answers and PostgreSQL are no longer waited for either. */
  giveUp: AbortSignal;
}
