import { z } from '@hono/zod-openapi';
import { deleteDraft } from '../../db/notification-drafts.ts';
import { findNotification, listNotifications } from '../../db/notifications.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { NotificationSummary } from '../../domain/notification.ts';
import { notificationStates } from '../../domain/notification-state.ts';
import type { TakePlace } from '../access/places.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { idempotencyKey } from '../http/idempotency.ts';
import { answerListing, formatInQuery, type Listing, listingContent, streamRule } from '../http/listing.ts';
import { limitInQuery, uuidCursor } from '../http/paging.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { recordNotificationChange } from './carry-out.ts';
import { createNotification } from './create.ts';
import { editNotification } from './edit.ts';
import {
  checkedId,
  fromNotification,
  fromSummary,
  newNotificationSchema,
  notificationChangeSchema,
  notificationPageSchema,
  notificationParams,
  notificationSchema,
  notificationSummarySchema,
  summaryCells,
  summaryColumns,
} from './schemas.ts';
import { stateConflict } from './state-conflict.ts';

const tags = ['Notifications'];
const oneNotification = { content: { 'application/json': { schema: notificationSchema } } };

const location = { Location: { schema: { type: 'string' as const }, required: true, description: 'Its path.' } };

const createNotificationRoute = defineRoute({
  method: 'post',
  path: '/v1/notifications',
  scope: 'notifications:write',
  tags,
  summary: 'Create a draft, or send at once, or schedule',
  description:
    'The payload is built and measured here for each provider that the audience can hold, so that no device is refused for it later. launch and scheduled_at need the scope `notifications:send` too.',
  request: {
    headers: z.object({ 'idempotency-key': idempotencyKey }),
    body: { required: true, content: { 'application/json': { schema: newNotificationSchema } } },
  },
  responses: {
    200: { description: 'Created by an earlier request under this key.', headers: location, ...oneNotification },
    201: { description: 'Created.', headers: location, ...oneNotification },
    ...problems(409, ...bodyProblems),
  },
});

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications',
  scope: 'notifications:read',
  tags,
  summary: 'List notifications and their books, newest first',
  description: streamRule,
  request: {
    query: z.strictObject({
      cursor: uuidCursor,
      limit: limitInQuery(100, 20),
      state: z.enum(notificationStates).optional(),
      format: formatInQuery,
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream.',
      content: listingContent(notificationPageSchema, notificationSummarySchema.shape, 'NotificationLine'),
    },
    ...problems(),
  },
});

const getRoute = defineRoute({
  method: 'get',
  path: '/v1/notifications/{id}',
  scope: 'notifications:read',
  tags,
  summary: 'Show a notification and its books',
  request: { params: notificationParams },
  responses: { 200: { description: 'The notification.', ...oneNotification }, ...problems(404) },
});

const patchRoute = defineRoute({
  method: 'patch',
  path: '/v1/notifications/{id}',
  scope: 'notifications:write',
  tags,
  summary: 'Change a draft, a schedule or a rate',
  description:
    'Content: only of a draft; unschedule makes a scheduled notification one again. scheduled_at: only while scheduled. rate_per_second: until it ends, at once. Both need the scope `notifications:send` too, the rate once it is launched.',
  request: {
    params: notificationParams,
    body: { required: true, content: { 'application/json': { schema: notificationChangeSchema } } },
  },
  responses: {
    200: { description: 'The notification as it is now.', ...oneNotification },
    ...problems(404, 409, ...bodyProblems),
  },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/notifications/{id}',
  scope: 'notifications:write',
  tags,
  summary: 'Delete a draft',
  request: { params: notificationParams },
  responses: { 204: { description: 'Deleted.' }, ...problems(404, 409) },
});

/** Each with a sum over its batches. */
const linesPerQuery = 200;

export function notifications(deps: ApiDependencies, takePlace: TakePlace) {
  const { db, stopping } = deps;
  return createRouter()
    .openapi(createNotificationRoute, async (c) => {
      const idempotencyKey = c.req.valid('header')['idempotency-key'];
      const { notification, isNew } = await createNotification(deps, c.var, c.req.valid('json'), idempotencyKey);
      c.header('Location', `/v1/notifications/${notification.id}`);
      return c.json(fromNotification(notification), isNew ? 201 : 200);
    })
    .openapi(listRoute, async (c) => {
      const { state, ...asked } = c.req.valid('query');
      const { id: appId } = c.var.app;
      const listed = {
        read: (page) => listNotifications(db, appId, { ...page, state }),
        cursorAfter: ({ id }) => id,
        toLine: fromSummary,
        columns: summaryColumns,
        toCells: summaryCells,
        linesPerQuery,
      } satisfies Listing<NotificationSummary, string, ReturnType<typeof fromSummary>>;
      return answerListing(c, asked, listed, { take: () => takePlace(appId), stopping }, (lines, next_cursor) =>
        c.json({ notifications: lines, next_cursor }, 200),
      );
    })
    .openapi(getRoute, async (c) => {
      const notification = await findNotification(db, c.var.app.id, checkedId(c.req.valid('param').id));
      if (!notification) throw notFound('notification');
      return c.json(fromNotification(notification), 200);
    })
    .openapi(patchRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      return c.json(fromNotification(await editNotification(deps, c.var, id, c.req.valid('json'))), 200);
    })
    .openapi(deleteRoute, async (c) => {
      const id = checkedId(c.req.valid('param').id);
      const { app, actor } = c.var;
      await inTransaction(db, async (trx) => {
        if (!(await deleteDraft(trx, app.id, id))) {
          const notification = await findNotification(trx, app.id, id);
          throw notification ? stateConflict('deletion', notification) : notFound('notification');
        }
        await recordNotificationChange(trx, actor, 'delete', { appId: app.id, id });
      });
      return c.body(null, 204);
    });
}
