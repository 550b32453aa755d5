import { getSummary, beginScheduled as moveToSending, readForWorkflow } from '../db/notifications.ts';
import type { Books } from '../domain/notification.ts';
import type { NotificationState } from '../domain/notification-state.ts';
import type { ActivityDeps } from './activities.ts';

/** What the workflow steers by. */
export interface NotificationView {
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
  /** The worker's settings, carried in the history so that a replay sees the same. */
  settings: { openBatches: number; batchesPerRun: number; heartbeatTimeoutMs: number };
}

/** Undefined: deleted. Notes the version that was read; a repeat changes nothing else. */
export async function readNotification(deps: ActivityDeps, id: string): Promise<NotificationView | undefined> {
  const row = await readForWorkflow(deps.db, id);
  if (!row) return undefined;
  const { openBatches, batchesPerRun, heartbeatTimeoutMs } = deps.config;
  const { books, scheduledAt, ratePerSecond } = await getSummary(deps.db, id);
  return {
    state: row.state,
    title: row.title,
    isFinished: row.isFinished,
    haltDetail: row.haltDetail,
    scheduledAt: scheduledAt?.toISOString() ?? null,
    msUntilScheduled: row.msUntilScheduled,
    ratePerSecond,
    books,
    settings: { openBatches, batchesPerRun, heartbeatTimeoutMs },
  };
}

/** Keyed by the state: a repeat finds the notification sending and changes nothing. */
export async function beginScheduled(deps: ActivityDeps, id: string): Promise<void> {
  await moveToSending(deps.db, id);
}
