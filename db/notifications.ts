import { type ExpressionBuilder, type Kysely, type Selectable, sql } from 'kysely';
import { jsonObjectFrom } from 'kysely/helpers/postgres';
import type { Books, Notification, NotificationSummary } from '../domain/notification.ts';
import type { NotificationState } from '../domain/notification-state.ts';
import { emptyOutcomeCounts, outcomes, sumOfOutcomes } from '../domain/outcome.ts';
import { type StoredHost, toUnreachableHost, unreachableHosts } from './provider-hosts.ts';
import type { Database, NotificationRow } from './schema.ts';

export async function findNotification(
  db: Kysely<Database>,
  appId: number,
  id: string,
): Promise<Notification | undefined> {
  const row = await selectNotifications(db).where('app_id', '=', appId).where('id', '=', id).executeTakeFirst();
  return row && toNotification(row);
}

export async function getNotificationOfAnyApp(db: Kysely<Database>, id: string): Promise<Notification> {
  return toNotification(await selectNotifications(db).where('id', '=', id).executeTakeFirstOrThrow());
}

/** State and books, not the message and its audience: for callers that look often. */
export async function findSummary(
  db: Kysely<Database>,
  appId: number,
  id: string,
): Promise<NotificationSummary | undefined> {
  const row = await selectSummaries(db).where('app_id', '=', appId).where('id', '=', id).executeTakeFirst();
  return row && toSummary(row);
}

export async function getSummaryOfAnyApp(db: Kysely<Database>, id: string): Promise<NotificationSummary> {
  return toSummary(await selectSummaries(db).where('id', '=', id).executeTakeFirstOrThrow());
}

/** Newest first; `cursor` is the last id of the page before. */
export async function listNotifications(
  db: Kysely<Database>,
  appId: number,
  page: { cursor?: string | undefined; limit: number; state?: NotificationState | undefined },
): Promise<NotificationSummary[]> {
  let query = selectSummaries(db).where('app_id', '=', appId).orderBy('id', 'desc').limit(page.limit);
  if (page.cursor !== undefined) query = query.where('id', '<', page.cursor);
  if (page.state !== undefined) query = query.where('state', '=', page.state);
  return (await query.execute()).map(toSummary);
}

const summaryColumns = [
  'id',
  'app_id',
  'state',
  'version',
  'title',
  'in_doubt_policy',
  'rate_per_second',
  'scheduled_at',
  'launched_at',
  'expires_at',
  'finished_at',
  'exported_at',
  'halt_reason',
  'halt_detail',
  'planned_at',
  'totals',
  'created_at',
  'updated_at',
] as const;

/** The live books are a sum over the batches: about a thousand rows for ten million devices. */
function selectSummaries(db: Kysely<Database>) {
  return db
    .selectFrom('notifications')
    .select(summaryColumns)
    .select(sumOfBatches)
    .select(
      unreachableHosts(sql`notifications.state = 'sending' and h.app_id = notifications.app_id and exists (
        select from batches b
        where b.notification_id = notifications.id and b.provider = h.provider and b.finished_at is null
      )`).as('unreachable'),
    );
}

function selectNotifications(db: Kysely<Database>) {
  return selectSummaries(db).select(['message', 'audience', 'listed']);
}

function sumOfBatches(eb: ExpressionBuilder<Database, 'notifications'>) {
  return jsonObjectFrom(
    eb
      .selectFrom('batches')
      .whereRef('batches.notification_id', '=', 'notifications.id')
      .select(({ fn }) => [
        ...outcomes.map((outcome) => fn.coalesce(fn.sum<number>(outcome), sql<number>`0`).as(outcome)),
        fn.coalesce(fn.sum<number>('size'), sql<number>`0`).as('size'),
        fn.countAll<number>().as('batches'),
        fn.count<number>('finished_at').as('finished'),
      ]),
  ).as('sums');
}

type SummaryRow = Pick<Selectable<NotificationRow>, (typeof summaryColumns)[number]> & {
  unreachable: StoredHost[];
  sums: (Record<string, number> & { size: number; batches: number; finished: number }) | null;
};

type WholeRow = SummaryRow & Pick<Selectable<NotificationRow>, 'message' | 'audience' | 'listed'>;

function toNotification(row: WholeRow): Notification {
  return { ...toSummary(row), message: row.message, audience: row.audience, listed: row.listed };
}

function toSummary(row: SummaryRow): NotificationSummary {
  return {
    id: row.id,
    appId: row.app_id,
    state: row.state,
    version: row.version,
    title: row.title,
    inDoubtPolicy: row.in_doubt_policy,
    ratePerSecond: row.rate_per_second,
    scheduledAt: row.scheduled_at,
    launchedAt: row.launched_at,
    expiresAt: row.expires_at,
    finishedAt: row.finished_at,
    exportedAt: row.exported_at,
    halt: row.halt_reason ? { reason: row.halt_reason, detail: row.halt_detail ?? '' } : null,
    unreachable: row.unreachable.map(toUnreachableHost),
    books: toBooks(row),
    totals: row.totals,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

function toBooks(row: SummaryRow): Books {
  const counts = emptyOutcomeCounts();
  for (const outcome of outcomes) counts[outcome] = row.sums?.[outcome] ?? 0;
  const audience = row.sums?.size ?? 0;
  return {
    audience,
    outcomes: counts,
    pending: audience - sumOfOutcomes(counts),
    isPlanned: row.planned_at !== null,
    batches: row.sums?.batches ?? 0,
    batchesFinished: row.sums?.finished ?? 0,
  };
}
