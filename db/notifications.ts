import { type ExpressionBuilder, type Kysely, type RawBuilder, type Selectable, sql } from 'kysely';
import { jsonObjectFrom } from 'kysely/helpers/postgres';
import type { Audience } from '../domain/audience.ts';
import type { Message } from '../domain/message.ts';
import type { Books, Notification, NotificationSummary, Totals } from '../domain/notification.ts';
import type { HaltReason, InDoubtPolicy, NotificationState } from '../domain/notification-state.ts';
import { emptyOutcomeCounts, outcomes, sumOfOutcomes } from '../domain/outcome.ts';
import { forgetLists } from './audience-lists.ts';
import { type StoredHost, toUnreachableHost, unreachableHosts } from './provider-hosts.ts';
import type { Database, NotificationRow } from './schema.ts';

export interface NewNotification {
  id: string;
  appId: number;
  title: string | null;
  message: Message;
  audience: Audience;
  inDoubtPolicy: InDoubtPolicy;
  ratePerSecond: number | null;
  idempotencyKey?: string | undefined;
  /** Tells a repeat of the same request from another request under the same key. */
  requestHash?: string | undefined;
}

/** Stores a draft. With an idempotency key that the app used before, nothing is stored and the earlier row's id and hash come back. */
export async function insertNotification(
  db: Kysely<Database>,
  input: NewNotification,
): Promise<{ isNew: true } | { isNew: false; id: string; requestHash: string | null }> {
  const inserted = await db
    .insertInto('notifications')
    .values({
      id: input.id,
      app_id: input.appId,
      state: 'draft',
      title: input.title,
      message: JSON.stringify(input.message),
      audience: JSON.stringify(input.audience),
      listed: sql`listed_counts(${input.appId}, ${JSON.stringify(input.audience)}::jsonb, null)`,
      in_doubt_policy: input.inDoubtPolicy,
      rate_per_second: input.ratePerSecond,
      idempotency_key: input.idempotencyKey ?? null,
      request_hash: input.requestHash ?? null,
    })
    .onConflict((oc) => oc.constraint('notifications_app_idempotency_key').doNothing())
    .returning('id')
    .executeTakeFirst();
  if (inserted) return { isNew: true };
  const earlier = await db
    .selectFrom('notifications')
    .select(['id', 'request_hash'])
    .where('app_id', '=', input.appId)
    .where('idempotency_key', '=', input.idempotencyKey ?? '')
    .executeTakeFirstOrThrow();
  return { isNew: false, id: earlier.id, requestHash: earlier.request_hash };
}

/** Only a draft can be changed or deleted; undefined: not found or no draft any more. */
export async function updateDraft(
  db: Kysely<Database>,
  appId: number,
  id: string,
  change: Partial<Pick<NewNotification, 'title' | 'message' | 'audience' | 'inDoubtPolicy' | 'ratePerSecond'>>,
): Promise<Notification | undefined> {
  const audience = change.audience && JSON.stringify(change.audience);
  const updated = await db
    .updateTable('notifications')
    .set({
      updated_at: sql`now()`,
      ...(change.title !== undefined && { title: change.title }),
      ...(change.message !== undefined && { message: JSON.stringify(change.message) }),
      ...(audience !== undefined && {
        audience,
        listed: sql`listed_counts(app_id, ${audience}::jsonb, listed -> 'uploaded')`,
        // An audience that no longer asks for its uploaded list has forgotten it.
        audience_list_id: sql`case when ${audience}::jsonb ? 'uploaded' then audience_list_id end`,
      }),
      ...(change.inDoubtPolicy !== undefined && { in_doubt_policy: change.inDoubtPolicy }),
      ...(change.ratePerSecond !== undefined && { rate_per_second: change.ratePerSecond }),
    })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('state', '=', 'draft')
    .returning('id')
    .executeTakeFirst();
  return updated && findNotification(db, appId, id);
}

/** True when a draft was deleted. */
export async function deleteDraft(db: Kysely<Database>, appId: number, id: string): Promise<boolean> {
  const result = await db
    .deleteFrom('notifications')
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('state', '=', 'draft')
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}

/** Changes the rate of a notification that has not ended; workers obey it from their next window on. */
export async function setRate(
  db: Kysely<Database>,
  appId: number,
  id: string,
  ratePerSecond: number | null,
): Promise<Move | undefined> {
  return move(db, appId, id, ['draft', 'scheduled', 'sending', 'paused', 'halted'], [], {
    rate_per_second: ratePerSecond,
  });
}

export async function findNotification(
  db: Kysely<Database>,
  appId: number,
  id: string,
): Promise<Notification | undefined> {
  const row = await selectNotifications(db).where('app_id', '=', appId).where('id', '=', id).executeTakeFirst();
  return row && toNotification(row);
}

/** For workers, which serve every app. */
export async function getNotification(db: Kysely<Database>, id: string): Promise<Notification> {
  return toNotification(await selectNotifications(db).where('id', '=', id).executeTakeFirstOrThrow());
}

/** For whoever looks often: state and books, not the message and its audience. */
export async function findSummary(
  db: Kysely<Database>,
  appId: number,
  id: string,
): Promise<NotificationSummary | undefined> {
  const row = await selectSummaries(db).where('app_id', '=', appId).where('id', '=', id).executeTakeFirst();
  return row && toSummary(row);
}

/** For workers, which serve every app. */
export async function getSummary(db: Kysely<Database>, id: string): Promise<NotificationSummary> {
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

/**
 * A state change is one conditional UPDATE. `ok` is also true when the notification already was where the caller wants it:
 * a repeat is harmless. Not `ok`: the state does not allow it. Undefined: not found.
 */
export type Move = { ok: boolean; notification: Notification };

/** What a launch leads to: a repeat asks for nothing more, whatever became of the send since. Not `cancelled`: that took it back. */
const launched: NotificationState[] = ['sending', 'paused', 'halted', 'completed'];

/** `draft | scheduled → sending`, or `→ scheduled` with a time. Freezes the audience's ceiling when sending begins. */
export async function launchNotification(
  db: Kysely<Database>,
  appId: number,
  id: string,
  scheduledAt?: Date,
): Promise<Move | undefined> {
  const from: NotificationState[] = ['draft', 'scheduled'];
  if (!scheduledAt)
    return move(db, appId, id, from, launched, {
      state: 'sending',
      ...launchValues(sql`clock_timestamp()`),
    });
  const moved = await move(db, appId, id, from, launched, { state: 'scheduled', scheduled_at: scheduledAt });
  if (!moved?.ok || moved.notification.state === 'scheduled') return moved;
  // It has begun: the time that it had is a repeat, another one comes too late.
  return { ...moved, ok: moved.notification.scheduledAt?.getTime() === scheduledAt.getTime() };
}

/** `scheduled → draft`. Whoever is first, this or the schedule's own begin, wins. */
export function unscheduleNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  return move(db, appId, id, ['scheduled'], ['draft'], { state: 'draft', scheduled_at: null });
}

/** `sending → paused`. */
export function pauseNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  return move(db, appId, id, ['sending'], ['paused'], { state: 'paused' });
}

/** `paused | halted → sending`. */
export function resumeNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  return move(db, appId, id, ['paused', 'halted'], ['sending', 'completed'], {
    state: 'sending',
    halt_reason: null,
    halt_detail: null,
  });
}

/** `→ cancelled` from any state that is not final. What was never planned is closed at once. */
export async function cancelNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  const cancelled = await move(db, appId, id, ['draft', 'scheduled', 'sending', 'paused', 'halted'], ['cancelled'], {
    state: 'cancelled',
    halt_reason: null,
    halt_detail: null,
    finished_at: sql`case when device_ceiling is null then now() end`,
  });
  // Never planned, so nobody else does it.
  if (cancelled?.ok && cancelled.notification.launchedAt === null) await forgetLists(db, id);
  return cancelled;
}

/** `scheduled → sending` once the time has come, by PostgreSQL's clock; false when it has not, or the state is another. */
export async function beginScheduled(db: Kysely<Database>, id: string): Promise<boolean> {
  const result = await db
    .updateTable('notifications')
    .set({ state: 'sending', ...launchValues(sql.ref('scheduled_at')), ...changed })
    .where('id', '=', id)
    .where('state', '=', 'scheduled')
    .where('scheduled_at', '<=', sql<Date>`clock_timestamp()`)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/** `sending → halted`; false when it was not sending. `detail` is one sentence for the person on call. */
export async function haltNotification(
  db: Kysely<Database>,
  id: string,
  reason: HaltReason,
  detail: string,
): Promise<boolean> {
  const result = await db
    .updateTable('notifications')
    .set({ state: 'halted', halt_reason: reason, halt_detail: detail, ...changed })
    .where('id', '=', id)
    .where('state', '=', 'sending')
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/** Closes the books with the totals counted from the rows: `sending → completed`, or the end of `cancelled`. A repeat changes nothing. */
export async function closeBooks(db: Kysely<Database>, id: string, totals: Totals): Promise<void> {
  await db
    .updateTable('notifications')
    .set({
      state: sql`case state when 'sending' then 'completed' else state end`,
      finished_at: sql`clock_timestamp()`,
      totals: JSON.stringify(totals),
      ...changed,
    })
    .where('id', '=', id)
    .where('state', 'in', ['sending', 'cancelled'])
    .where('finished_at', 'is', null)
    .execute();
}

/** What the workflow steers by; noting the version that it saw tells the reconciler that no wake-up was lost. */
export async function readForWorkflow(
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
      haltDetail: string | null;
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
      'halt_detail',
      sql<number>`coalesce(ceil(extract(epoch from scheduled_at - clock_timestamp()) * 1000), 0)::float8`.as(
        'ms_until',
      ),
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
      haltDetail: row.halt_detail,
    }
  );
}

/** A notification whose workflow must be looked after. */
export interface UnfinishedNotification {
  id: string;
  state: NotificationState;
  /** A change waits to be looked at by the workflow. */
  isUnseen: boolean;
}

/**
 * Notifications that need a workflow now, in order of id from `after` on: whoever sends or settles, whose time has come, and
 * every one with a change that its workflow has not seen. Changes younger than `graceMs` may still be on their way.
 */
export function listUnfinished(
  db: Kysely<Database>,
  page: { after: string | undefined; limit: number; graceMs: number },
): Promise<UnfinishedNotification[]> {
  let query = db
    .selectFrom('notifications')
    .select(['id', 'state', sql<boolean>`seen_version < version`.as('isUnseen')])
    .where('finished_at', 'is', null)
    .where('state', 'in', ['scheduled', 'sending', 'paused', 'halted', 'cancelled'])
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

const changed = { version: sql<number>`version + 1`, updated_at: sql<Date>`clock_timestamp()` };

/**
 * The time to live counts from `beginsAt`: a scheduled send that begins late has the rest of it. A ttl of 0 means one attempt by the
 * provider, not a notification that is over before it begins.
 */
function launchValues(beginsAt: RawBuilder<unknown>) {
  return {
    launched_at: sql<Date>`clock_timestamp()`,
    listed: sql<string | null>`listed_counts(app_id, audience, listed -> 'uploaded')`,
    device_ceiling: sql<number>`(select coalesce(max(d.id), 0) from devices d where d.app_id = notifications.app_id)`,
    expires_at: sql<Date | null>`case when (message ->> 'ttlSeconds')::integer > 0
      then ${beginsAt} + make_interval(secs => (message ->> 'ttlSeconds')::integer) end`,
  };
}

async function move(
  db: Kysely<Database>,
  appId: number,
  id: string,
  from: NotificationState[],
  already: NotificationState[],
  values: Record<string, unknown>,
): Promise<Move | undefined> {
  const result = await db
    .updateTable('notifications')
    .set({ ...values, ...changed })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('state', 'in', from)
    .executeTakeFirst();
  const notification = await findNotification(db, appId, id);
  if (!notification) return undefined;
  return { ok: result.numUpdatedRows > 0n || already.includes(notification.state), notification };
}

const summaryColumns = [
  'id',
  'app_id',
  'state',
  'title',
  'in_doubt_policy',
  'rate_per_second',
  'scheduled_at',
  'launched_at',
  'expires_at',
  'finished_at',
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
    title: row.title,
    inDoubtPolicy: row.in_doubt_policy,
    ratePerSecond: row.rate_per_second,
    scheduledAt: row.scheduled_at,
    launchedAt: row.launched_at,
    expiresAt: row.expires_at,
    finishedAt: row.finished_at,
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
