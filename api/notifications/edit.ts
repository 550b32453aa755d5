import type { Kysely } from 'kysely';
import { updateDraft } from '../../db/notification-drafts.ts';
import { launchNotification, type Move, setRate } from '../../db/notification-moves.ts';
import { findNotification } from '../../db/notifications.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Notification } from '../../domain/notification.ts';
import { requireScope } from '../access/require-scope.ts';
import { toAudience } from '../audiences/schemas.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';
import type { Caller } from '../http/env.ts';
import { checkPayload } from './check-payload.ts';
import { toMessage } from './message-schema.ts';
import { toScheduledAt } from './schedule.ts';
import type { NotificationChangeBody } from './schemas.ts';
import { stateConflict } from './state-conflict.ts';
import { wakeAfter } from './wake-after.ts';

/**
 * What may change and when: everything but the schedule while it is a draft (`unschedule` makes it one again), the time while it
 * is scheduled, the rate until it ends. All of a request or nothing. Time and rate of what was launched are a matter of sending.
 * @throws {ApiError} 403 without `notifications:send` where it takes that; 404; 409 with the state that forbids it.
 */
export async function editNotification(
  deps: ApiDependencies,
  caller: Caller,
  appId: number,
  id: string,
  body: NotificationChangeBody,
): Promise<Notification> {
  if (Object.values(body).every((value) => value === undefined)) {
    throw new ApiError(422, 'invalid_input', 'Name at least one field to change.', { field: '' });
  }
  const { scheduled_at: scheduledAt, rate_per_second: ratePerSecond, ...content } = body;
  const isContent = Object.values(content).some((value) => value !== undefined);
  if (isContent && scheduledAt !== undefined) {
    throw invalidField('scheduled_at', 'Launch the draft with scheduled_at, after its content is changed.');
  }
  const move = await inTransaction(deps.db, async (trx) => {
    const before = await findNotification(trx, appId, id);
    if (!before) throw notFound('notification');
    if (isContent) return changeDraft(trx, before, body);
    if (scheduledAt !== undefined || before.state !== 'draft') requireScope(caller, 'notifications:send');
    const rated = ratePerSecond === undefined ? undefined : await setRate(trx, appId, id, ratePerSecond);
    if (scheduledAt === undefined || rated?.ok === false) return rated;
    return reschedule(deps, trx, before, scheduledAt);
  });
  return wakeAfter(deps, 'a change', move);
}

async function changeDraft(db: Kysely<Database>, before: Notification, body: NotificationChangeBody): Promise<Move> {
  const message = body.message && toMessage(body.message);
  const audience = body.audience && toAudience(body.audience);
  checkPayload(message ?? before.message, audience ?? before.audience);
  const notification = await updateDraft(db, before.appId, before.id, {
    ...(body.title !== undefined && { title: body.title }),
    ...(message && { message }),
    ...(audience && { audience }),
    ...(body.in_doubt_policy && { inDoubtPolicy: body.in_doubt_policy }),
    ...(body.rate_per_second !== undefined && { ratePerSecond: body.rate_per_second }),
  });
  if (!notification) throw stateConflict('a change of its content', before);
  return { ok: true, notification };
}

async function reschedule(
  deps: ApiDependencies,
  db: Kysely<Database>,
  before: Notification,
  text: string,
): Promise<Move | undefined> {
  if (before.state !== 'scheduled') throw stateConflict('another time', before);
  const move = await launchNotification(db, before.appId, before.id, await toScheduledAt(text, deps, db));
  if (move && !move.ok) throw stateConflict('another time', move.notification);
  return move;
}
