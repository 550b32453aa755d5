import { beginScheduledOfAnyApp } from '../db/notification-moves.ts';
import { readForWorkflowOfAnyApp } from '../db/notification-steering.ts';
import { getSummaryOfAnyApp } from '../db/notifications.ts';
import type { HostInTrouble } from '../domain/delivery.ts';
import type { Books, UnreachableHost } from '../domain/notification.ts';
import type { HaltReason, NotificationState } from '../domain/notification-state.ts';
import type { ActivityDeps } from './activities.ts';

/** What the workflow of a notification steers by. */
export interface WorkflowView {
  state: NotificationState;
  title: string | null;
  isFinished: boolean;
  haltDetail: string | null;
  /** ISO 8601. */
  scheduledAt: string | null;
  msUntilScheduled: number;
  /** Devices per second; null: no limit of its own. */
  ratePerSecond: number | null;
  books: Books;
  /** Absent in histories from before it was known. */
  unreachable?: HostInTrouble[];
  /** For Temporal's list; absent where it has no search attributes, and in histories from before there were any. */
  search?: { app: string; haltReason: HaltReason | null };
  /** The worker's settings, carried in the history so that a replay sees the same. */
  settings: { openBatches: number; batchesPerRun: number; heartbeatTimeoutMs: number };
}

export function toHostInTrouble({ provider, host, since, error }: UnreachableHost): HostInTrouble {
  return { provider, host, since: since.toISOString(), error };
}

/** Undefined: deleted. Notes the version that was read; a repeat changes nothing else. */
export async function readNotification(deps: ActivityDeps, id: string): Promise<WorkflowView | undefined> {
  const row = await readForWorkflowOfAnyApp(deps.db, id);
  if (!row) return undefined;
  const { openBatches, batchesPerRun, heartbeatTimeoutMs } = deps.config;
  const { books, scheduledAt, ratePerSecond, unreachable } = await getSummaryOfAnyApp(deps.db, id);
  return {
    state: row.state,
    title: row.title,
    isFinished: row.isFinished,
    haltDetail: row.haltDetail,
    scheduledAt: scheduledAt?.toISOString() ?? null,
    msUntilScheduled: row.msUntilScheduled,
    ratePerSecond,
    books,
    unreachable: unreachable.map(toHostInTrouble),
    ...(deps.search?.isOn && { search: { app: row.appName, haltReason: row.haltReason } }),
    settings: { openBatches, batchesPerRun, heartbeatTimeoutMs },
  };
}

/** Keyed by the state: a repeat finds the notification sending and changes nothing. */
export async function beginScheduled(deps: ActivityDeps, id: string): Promise<void> {
  await beginScheduledOfAnyApp(deps.db, id);
}
