import type { Kysely } from 'kysely';
import { updateDraft } from '../../db/notification-drafts.ts';
import { launchNotification, type Move, setRate } from '../../db/notification-moves.ts';
import { findNotification } from '../../db/notifications.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { App } from '../../domain/app.ts';
import type { JsonObject } from '../../domain/json.ts';
import type { Notification } from '../../domain/notification.ts';
import { requireScope } from '../access/require-scope.ts';
import { toAudience } from '../audiences/schemas.ts';
import { differences } from '../audit/differences.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';
import type { AppEnv } from '../http/env.ts';
import { checked, recordNotificationChange, wakeIfLaunched } from './carry-out.ts';
import { checkPayload } from './check-payload.ts';
import { toMessage } from './message-schema.ts';
import { toScheduledAt } from './schedule.ts';
import type { NotificationChangeBody } from './schemas.ts';
import { stateConflict } from './state-conflict.ts';

/**
 * What may change and when: everything but the schedule while it is a draft (`unschedule` makes it one again), the time while it
 * is scheduled, the rate until it ends. All of a request or nothing. Time and rate of what was launched are a matter of sending.
 * @throws {ApiError} 403 without `notifications:send` where it takes that; 404; 409 with the state that forbids it.
 */
export async function editNotification(
  deps: ApiDependencies,
  { caller, app, actor }: Pick<AppEnv['Variables'], 'caller' | 'app' | 'actor'>,
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
  async function change(trx: Kysely<Database>, before: Notification): Promise<Notification> {
    if (isContent) return changeDraft(trx, app, before, body);
    if (scheduledAt !== undefined || before.state !== 'draft') requireScope(caller, 'notifications:send');
    const rated = ratePerSecond === undefined ? undefined : await setRate(trx, app.id, id, ratePerSecond);
    const isRefused = scheduledAt === undefined || rated?.ok === false;
    return checked('a change', isRefused ? rated : await reschedule(deps, trx, before, scheduledAt)).notification;
  }
  const notification = await inTransaction(deps.db, async (trx) => {
    const before = await findNotification(trx, app.id, id);
    if (!before) throw notFound('notification');
    const after = await change(trx, before);
    const changes = differences(shown(before), shown(after), ['title', 'message', 'audience']);
    if (Object.keys(changes).length > 0) await recordNotificationChange(trx, actor, 'update', after, changes);
    return after;
  });
  await wakeIfLaunched(deps, notification);
  return notification;
}

/** What a request may change. The title is the message's own, where nobody gave another. */
function shown({ title, message, audience, inDoubtPolicy, ratePerSecond, scheduledAt }: Notification): JsonObject {
  return {
    ...{ title, message, audience, in_doubt_policy: inDoubtPolicy },
    ...{ rate_per_second: ratePerSecond, scheduled_at: scheduledAt?.toISOString() ?? null },
  } as unknown as JsonObject;
}

async function changeDraft(
  db: Kysely<Database>,
  app: App,
  before: Notification,
  body: NotificationChangeBody,
): Promise<Notification> {
  const message = body.message && toMessage(body.message, app);
  const audience = body.audience && toAudience(body.audience);
  checkPayload(message ?? before.message, audience ?? before.audience, app);
  const notification = await updateDraft(db, before.appId, before.id, {
    ...(body.title !== undefined && { title: body.title }),
    ...(message && { message }),
    ...(audience && { audience }),
    ...(body.in_doubt_policy && { inDoubtPolicy: body.in_doubt_policy }),
    ...(body.rate_per_second !== undefined && { ratePerSecond: body.rate_per_second }),
  });
  if (!notification) throw stateConflict('a change of its content', before);
  return notification;
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
