import { type Kysely, sql } from 'kysely';
import type { HaltReason, NotificationState } from '../domain/notification-state.ts';
import type { Database } from './schema.ts';

/** What the workflow steers by; noting the version that it saw tells the reconciler that no wake-up was lost. */
export async function readForWorkflowOfAnyApp(
  db: Kysely<Database>,
  id: string,
): Promise<
  | {
      state: NotificationState;
      title: string | null;
      isFinished: boolean;
      isPlanned: boolean;
      audienceSize: number;
      msUntilScheduled: number;
      haltReason: HaltReason | null;
      haltDetail: string | null;
      appName: string;
    }
  | undefined
> {
  const row = await db
    .updateTable('notifications')
    .set({ seen_version: sql`version` })
    .where('id', '=', id)
    .returning([
      'state',
      'title',
      'finished_at',
      'planned_at',
      'audience_size',
      'halt_reason',
      'halt_detail',
      sql<number>`coalesce(ceil(extract(epoch from scheduled_at - clock_timestamp()) * 1000), 0)::float8`.as(
        'ms_until',
      ),
      sql<string>`(select name from apps where apps.id = notifications.app_id)`.as('app_name'),
    ])
    .executeTakeFirst();
  return (
    row && {
      state: row.state,
      title: row.title,
      isFinished: row.finished_at !== null,
      isPlanned: row.planned_at !== null,
      audienceSize: row.audience_size,
      msUntilScheduled: Math.max(0, row.ms_until),
      haltReason: row.halt_reason,
      haltDetail: row.halt_detail,
      appName: row.app_name,
    }
  );
}

/** A notification whose workflow must be looked after. */
export interface UnfinishedNotification {
  id: string;
  state: NotificationState;
  version: number;
  /** A change waits to be looked at by the workflow. */
  isUnseen: boolean;
}

/**
 * Notifications that need a workflow now, in order of id from `after` on: those that send or settle, those whose time has come, and
 * every one with a change that its workflow has not seen. Changes younger than `graceMs` may still be on their way.
 */
export function listUnfinishedOfAllApps(
  db: Kysely<Database>,
  page: { after: string | undefined; limit: number; graceMs: number },
): Promise<UnfinishedNotification[]> {
  let query = db
    .selectFrom('notifications')
    .select(['id', 'state', 'version', sql<boolean>`seen_version < version`.as('isUnseen')])
    .where('finished_at', 'is', null)
    .where('state', '<>', 'draft')
    .where(
      sql<boolean>`(seen_version < version or state in ('sending', 'cancelled')
        or (state = 'scheduled' and scheduled_at <= clock_timestamp()))`,
    )
    .where(sql<boolean>`updated_at <= clock_timestamp() - make_interval(secs => ${page.graceMs / 1000})`)
    .orderBy('id')
    .limit(page.limit);
  if (page.after !== undefined) query = query.where('id', '>', page.after);
  return query.execute();
}
