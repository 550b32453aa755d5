import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { findNotification } from '../../db/notifications.ts';
import { inTransaction } from '../../db/transaction.ts';
import { cutText } from '../../domain/cut-text.ts';
import type { Notification } from '../../domain/notification.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { requireScope } from '../access/require-scope.ts';
import { toAudience } from '../audiences/schemas.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { invalidField } from '../http/api-error.ts';
import type { AppEnv } from '../http/env.ts';
import { hashOf, keyReused, withPolicy } from '../http/idempotency.ts';
import { recordNotificationChange } from './carry-out.ts';
import { checkPayload } from './check-payload.ts';
import { toMessage } from './message-schema.ts';
import { toScheduledAt } from './schedule.ts';
import type { NewNotificationBody } from './schemas.ts';

/**
 * Stores a notification and, where asked, launches or schedules it in the same transaction. Under an idempotency key that was
 * used before, the earlier notification is returned and nothing is stored.
 * @throws {ApiError} 403 without `notifications:send` where it is to be sent; 409 idempotency_key_reused when the earlier request under that key was another one.
 */
export async function createNotification(
  deps: ApiDependencies,
  { caller, app, actor }: Pick<AppEnv['Variables'], 'caller' | 'app' | 'actor'>,
  body: NewNotificationBody,
  idempotencyKey: string | undefined,
): Promise<{ notification: Notification; isNew: boolean }> {
  if (body.launch || body.scheduled_at !== undefined) requireScope(caller, 'notifications:send');
  const message = toMessage(body.message, app);
  const audience = toAudience(body.audience);
  checkPayload(message, audience, app);
  if (body.launch && body.scheduled_at !== undefined) {
    throw invalidField('scheduled_at', 'Give either launch or scheduled_at.');
  }
  const appId = app.id;
  const id = uuidV7();
  const requestHash = idempotencyKey === undefined ? undefined : hashOf(withPolicy(body));

  const created = await inTransaction(deps.db, async (trx) => {
    const stored = await insertNotification(trx, {
      id,
      appId,
      title: body.title ?? (message.title === undefined ? null : cutText(message.title, 255)),
      message,
      audience,
      inDoubtPolicy: body.in_doubt_policy ?? app.defaultInDoubtPolicy,
      ratePerSecond: body.rate_per_second,
      idempotencyKey,
      requestHash,
    });
    if (!stored.isNew && stored.requestHash !== requestHash) {
      throw keyReused({ notification_id: stored.id });
    }
    const isDue = stored.isNew && (body.launch || body.scheduled_at !== undefined);
    // A repeat of a request that scheduled for what is now the past is still the same request: only a new one is checked.
    const scheduledAt = isDue && body.scheduled_at ? await toScheduledAt(body.scheduled_at, deps, trx) : undefined;
    const launched = isDue ? await launchNotification(trx, appId, id, scheduledAt) : undefined;
    const notification = launched?.notification ?? (await findNotification(trx, appId, stored.isNew ? id : stored.id));
    if (!notification) throw new Error('a notification vanished within the transaction that stored it');
    if (stored.isNew) {
      const changes = { state: notification.state, scheduled_at: notification.scheduledAt?.toISOString() ?? null };
      await recordNotificationChange(trx, actor, 'create', notification, changes);
    }
    return { notification, isNew: stored.isNew };
  });
  if (created.isNew && created.notification.state !== 'draft') await deps.waker.wake(created.notification);
  return created;
}
