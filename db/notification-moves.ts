import { type Kysely, type RawBuilder, sql } from 'kysely';
import { workerActor } from '../domain/actor.ts';
import type { Notification, NotificationSummary } from '../domain/notification.ts';
import { isRepeat, type NotificationVerb, statesThatAllow } from '../domain/notification-state.ts';
import { forgetLists } from './audience-lists.ts';
import { auditEntry } from './audit-entries.ts';
import { findNotification } from './notifications.ts';
import type { Database } from './schema.ts';

/**
 * A state change is one conditional UPDATE: `isChanged` where it was made. `ok` is also true when the notification already was where the caller wants it:
 * a repeat is harmless. Not `ok`: the state does not allow it. Undefined: not found.
 */
export type Move = { ok: boolean; isChanged: boolean; notification: Notification };

/** `draft | scheduled → sending`, or `→ scheduled` with a time. Freezes the audience's ceiling when sending begins. */
export async function launchNotification(
  db: Kysely<Database>,
  appId: number,
  id: string,
  scheduledAt?: Date,
): Promise<Move | undefined> {
  if (!scheduledAt) {
    return move(db, appId, id, 'launch', { state: 'sending', ...launchValues(sql`clock_timestamp()`) });
  }
  const isSame = sql<boolean>`state = 'scheduled' and scheduled_at = ${scheduledAt}`;
  const moved = await move(db, appId, id, 'launch', { state: 'scheduled', scheduled_at: scheduledAt }, isSame);
  if (!moved || moved.isChanged) return moved;
  // The time that it has, or had before it began, is a repeat; another one comes too late.
  const isRepeated = moved.notification.scheduledAt?.getTime() === scheduledAt.getTime();
  return { ...moved, ok: isRepeated && (moved.ok || moved.notification.state === 'scheduled') };
}

/** `scheduled → draft`. Of this and the schedule's own begin the first one wins. */
export function unscheduleNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  return move(db, appId, id, 'unschedule', { state: 'draft', scheduled_at: null });
}

/** `sending → paused`. */
export function pauseNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  return move(db, appId, id, 'pause', { state: 'paused' });
}

/** `paused | halted → sending`. */
export function resumeNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  return move(db, appId, id, 'resume', { state: 'sending', halt_reason: null, halt_detail: null });
}

/** `→ cancelled` from any state that is not final. What was never planned is closed at once. */
export async function cancelNotification(db: Kysely<Database>, appId: number, id: string): Promise<Move | undefined> {
  const cancelled = await move(db, appId, id, 'cancel', {
    state: 'cancelled',
    halt_reason: null,
    halt_detail: null,
    finished_at: sql`case when device_ceiling is null then now() end`,
  });
  // Never planned, so that no page of the plan forgets them.
  if (cancelled?.ok && cancelled.notification.launchedAt === null) await forgetLists(db, id);
  return cancelled;
}

/** `scheduled → sending` once the time has come, by PostgreSQL's clock; false when it has not, or the state is another. */
export async function beginScheduledOfAnyApp(db: Kysely<Database>, id: string): Promise<boolean> {
  const result = await db
    .updateTable('notifications')
    .set({ state: 'sending', ...launchValues(sql.ref('scheduled_at')), ...nextVersion })
    .where('id', '=', id)
    .where('state', '=', 'scheduled')
    .where('scheduled_at', '<=', sql<Date>`clock_timestamp()`)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}

/**
 * `sending → halted`, on what was seen of the notification at this version: false when it has changed since. A fault that was seen
 * before the send was resumed says nothing about it now, and shows again if it is still there.
 * @param halt `detail` is one sentence for the person on call
 */
export async function haltNotificationOfAnyApp(
  db: Kysely<Database>,
  { id, version }: Pick<NotificationSummary, 'id' | 'version'>,
  { reason, detail }: NonNullable<NotificationSummary['halt']>,
): Promise<boolean> {
  const entry = auditEntry(workerActor, {
    ...{ appId: sql.ref('app_id'), action: 'notification.halt' },
    ...{ target: { kind: 'notification', id: sql`id::text` }, changes: { reason } },
  });
  const { rows } = await sql`
    with halted as (
      update notifications set state = 'halted', halt_reason = ${reason}, halt_detail = ${detail}, version = version + 1,
        updated_at = clock_timestamp()
      where id = ${id} and version = ${version} and state = 'sending' returning id, app_id
    )
    select ${entry} from halted
  `.execute(db);
  return rows.length > 0;
}

/** Changes the rate of a notification that has not ended; workers obey it from their next window on. */
export async function setRate(
  db: Kysely<Database>,
  appId: number,
  id: string,
  ratePerSecond: number | null,
): Promise<Move | undefined> {
  return move(db, appId, id, 'setRate', { rate_per_second: ratePerSecond });
}

/** Part of every change that the workflow must look at. */
export const nextVersion = { version: sql<number>`version + 1`, updated_at: sql<Date>`clock_timestamp()` };

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
  verb: NotificationVerb,
  values: Record<string, unknown>,
  isSame: RawBuilder<boolean> = sql`false`,
): Promise<Move | undefined> {
  const result = await db
    .updateTable('notifications')
    .set({ ...values, ...nextVersion })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('state', 'in', statesThatAllow(verb))
    .where(sql<boolean>`not (${isSame})`)
    .executeTakeFirst();
  const isChanged = result.numUpdatedRows > 0n;
  const notification = await findNotification(db, appId, id);
  if (!notification) return undefined;
  return { ok: isChanged || isRepeat(verb, notification.state), isChanged, notification };
}
