import { databaseNow } from '../../db/clock.ts';
import { updateDraft } from '../../db/notification-drafts.ts';
import { launchNotification, setRate } from '../../db/notification-moves.ts';
import { findNotification } from '../../db/notifications.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Notification } from '../../domain/notification.ts';
import { toAudience } from '../audiences/schemas.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/problems.ts';
import { checkForAudience, toMessage } from './message-schema.ts';
import { settle, stateConflict } from './moves.ts';
import { type NotificationChangeBody, toScheduledAt } from './schemas.ts';

/**
 * What may change and when: everything but the schedule while it is a draft (`unschedule` makes it one again), the time while it
 * is scheduled, the rate until it ends. All of a request or nothing.
 * @throws {ApiError} 404; 409 with the state that forbids it.
 */
export async function editNotification(
  deps: ApiDependencies,
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
    if (isContent) {
      const message = body.message && toMessage(body.message);
      const audience = body.audience && toAudience(body.audience);
      checkForAudience(message ?? before.message, audience ?? before.audience);
      const notification = await updateDraft(trx, appId, id, {
        ...(body.title !== undefined && { title: body.title }),
        ...(message && { message }),
        ...(audience && { audience }),
        ...(body.in_doubt_policy && { inDoubtPolicy: body.in_doubt_policy }),
        ...(ratePerSecond !== undefined && { ratePerSecond }),
      });
      if (!notification) throw stateConflict('a change of its content', before);
      return { ok: true, notification };
    }
    let last = ratePerSecond === undefined ? undefined : await setRate(trx, appId, id, ratePerSecond);
    if (last && !last.ok) return last;
    if (scheduledAt !== undefined) {
      if (before.state !== 'scheduled') throw stateConflict('another time', before);
      last = await launchNotification(
        trx,
        appId,
        id,
        toScheduledAt(scheduledAt, deps.now?.() ?? (await databaseNow(trx))),
      );
      if (last && !last.ok) throw stateConflict('another time', last.notification);
    }
    return last;
  });
  return settle(deps, 'a change', move);
}
