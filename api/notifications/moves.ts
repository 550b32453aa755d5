import type { Kysely } from 'kysely';
import {
  cancelNotification,
  launchNotification,
  pauseNotification,
  resumeNotification,
  unscheduleNotification,
} from '../../db/notification-moves.ts';
import { findNotification } from '../../db/notifications.ts';
import type { Database } from '../../db/schema.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { carryOut } from './carry-out.ts';
import { toScheduledAt } from './schedule.ts';
import { checkedId, fromNotification, launchSchema, notificationParams, notificationSchema } from './schemas.ts';

/**
 * Launch, unschedule, pause, resume, cancel: one conditional change in PostgreSQL, which every worker obeys from its next window
 * on, then a call that wakes the workflow. When Temporal cannot be reached the answer is the same, and the reconciler makes up
 * for it.
 */
function moveRoute<Verb extends 'launch' | 'unschedule' | 'pause' | 'resume' | 'cancel'>(
  verb: Verb,
  scope: 'notifications:send' | 'notifications:stop',
  summary: string,
  description: string,
) {
  const oneNotification = { content: { 'application/json': { schema: notificationSchema } } };
  return {
    method: 'post' as const,
    path: `/v1/notifications/{id}/${verb}` as const,
    scope,
    tags: ['Notifications'],
    summary,
    description,
    request: { params: notificationParams },
    responses: {
      200: { description: 'Done.', ...oneNotification },
      202: { description: 'Stored; the workers follow.', ...oneNotification },
      ...problems(404, 409, ...bodyProblems),
    },
  };
}

const launch = moveRoute(
  'launch',
  'notifications:send',
  'Send now, or at a time',
  'Freezes the audience: devices registered later are not in it. A second launch changes nothing, also when the send has ended. With scheduled_at the send begins then.',
);
const launchRoute = defineRoute({
  ...launch,
  request: { ...launch.request, body: { content: { 'application/json': { schema: launchSchema } } } },
});
const unscheduleRoute = defineRoute(
  moveRoute(
    'unschedule',
    'notifications:stop',
    'Take a schedule back',
    'The notification is a draft again: it can be changed, and launched at once or for another time. A repeat is harmless.',
  ),
);
const pauseRoute = defineRoute(
  moveRoute(
    'pause',
    'notifications:stop',
    'Stop dispatching',
    'What is in flight is still recorded. A repeat is harmless.',
  ),
);
const resumeRoute = defineRoute(
  moveRoute(
    'resume',
    'notifications:send',
    'Continue',
    'After a pause, or after the fault that halted the send is fixed.',
  ),
);
const cancelRoute = defineRoute(
  moveRoute(
    'cancel',
    'notifications:stop',
    'End it',
    'Devices that were not sent to end as cancelled. A repeat is harmless.',
  ),
);

export function notificationMoves(deps: ApiDependencies) {
  return createRouter()
    .openapi(launchRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      const scheduledAt = await toLaunchTime(deps, c.var.app.id, id, c.req.valid('json')?.scheduled_at);
      const changes = scheduledAt && { scheduled_at: scheduledAt.toISOString() };
      const launch = (db: Kysely<Database>, appId: number) => launchNotification(db, appId, id, scheduledAt);
      return c.json(fromNotification(await carryOut(deps, c.var, 'launch', launch, changes)), 202);
    })
    .openapi(unscheduleRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      const unschedule = (db: Kysely<Database>, appId: number) => unscheduleNotification(db, appId, id);
      const notification = await carryOut(deps, c.var, 'unschedule', unschedule);
      // Its workflow sleeps until the time that was taken back. Without this word it does, and ends when it looks.
      await deps.waker.wake(notification);
      return c.json(fromNotification(notification), 200);
    })
    .openapi(pauseRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      const pause = (db: Kysely<Database>, appId: number) => pauseNotification(db, appId, id);
      return c.json(fromNotification(await carryOut(deps, c.var, 'pause', pause)), 200);
    })
    .openapi(resumeRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      const resume = (db: Kysely<Database>, appId: number) => resumeNotification(db, appId, id);
      return c.json(fromNotification(await carryOut(deps, c.var, 'resume', resume)), 202);
    })
    .openapi(cancelRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      const cancel = (db: Kysely<Database>, appId: number) => cancelNotification(db, appId, id);
      const notification = await carryOut(deps, c.var, 'cancel', cancel);
      return c.json(fromNotification(notification), notification.finishedAt ? 200 : 202);
    });
}

/** The time that is stored already was checked when it came: a repeat of that launch may come after it. */
async function toLaunchTime(
  deps: ApiDependencies,
  appId: number,
  id: string,
  text: string | undefined,
): Promise<Date | undefined> {
  if (text === undefined) return undefined;
  const before = await findNotification(deps.db, appId, id);
  if (!before) throw notFound('notification');
  const isStored = before.scheduledAt?.getTime() === Date.parse(text);
  return isStored ? new Date(text) : toScheduledAt(text, deps, deps.db);
}
