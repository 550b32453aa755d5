import { z } from '@hono/zod-openapi';
import type { Notification, NotificationSummary } from '../../domain/notification.ts';
import { haltReasons, inDoubtPolicies, notificationStates } from '../../domain/notification-state.ts';
import { outcomes, sumOfOutcomes } from '../../domain/outcome.ts';
import {
  audienceExample,
  fromAudience,
  fromListed,
  listedSchema,
  notificationAudienceSchema,
} from '../audiences/schemas.ts';
import { fromUnreachableHost, unreachableHostSchema } from '../health/unreachable-host.ts';
import { notFound } from '../http/api-error.ts';
import { count, countsBy } from '../http/counts.ts';
import { answeredInstant, answeredInstantOrNull, instant } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';
import { isUuid } from '../http/uuid.ts';
import { fromMessage, messageSchema } from './message-schema.ts';

const title = z
  .string()
  .min(1)
  .max(255)
  .openapi({ description: "For people, in listings and in Temporal's UI; default: the title of the message." });
export const inDoubtPolicy = z.enum(inDoubtPolicies).openapi({
  description:
    'What to do with a device that may have got the message although no answer was recorded. redeliver: send again with the same ids, marked in_doubt; skip: record it as unknown. Default: as the app says.',
});
const ratePerSecond = z
  .int()
  .min(1)
  .max(1_000_000)
  .nullable()
  .openapi({ description: 'Devices per second for this notification over all workers; null: no limit of its own.' });
const scheduledAt = instant.openapi({ description: 'When to send: not in the past, at most 366 days ahead.' });

export const newNotificationSchema = z
  .strictObject({
    title: title.optional(),
    message: messageSchema,
    audience: notificationAudienceSchema,
    in_doubt_policy: inDoubtPolicy.optional(),
    rate_per_second: ratePerSecond.default(null),
    launch: z.boolean().default(false).openapi({ description: 'Send at once.' }),
    scheduled_at: scheduledAt.optional(),
  })
  .openapi('NewNotification', {
    example: {
      title: 'Spring sale, Kansai',
      message: { title: 'Spring sale', body: 'Everything in the shop, today only.', ttl: 86_400 },
      audience: audienceExample,
      rate_per_second: 2_000,
      launch: false,
    },
  });

export type NewNotificationBody = z.infer<typeof newNotificationSchema>;

export const notificationChangeSchema = z
  .strictObject({
    title: title.nullable().optional(),
    message: messageSchema.optional(),
    audience: notificationAudienceSchema.optional(),
    in_doubt_policy: inDoubtPolicy.optional(),
    rate_per_second: ratePerSecond.optional(),
    scheduled_at: scheduledAt.optional(),
  })
  .openapi('NotificationChange', { minProperties: 1, example: { rate_per_second: 500 } });

export type NotificationChangeBody = z.infer<typeof notificationChangeSchema>;

export const launchSchema = z.strictObject({ scheduled_at: scheduledAt.optional() }).openapi('Launch', { example: {} });

export const outcomeCounts = countsBy(outcomes).openapi('OutcomeCounts');

export const booksSchema = z
  .object({
    audience: count.openapi({ description: 'Devices planned so far; all of them once is_planned is true.' }),
    outcomes: outcomeCounts,
    pending: count.openapi({ description: 'Devices without an outcome.' }),
    balanced: z.boolean().openapi({ description: 'audience = sum of outcomes + pending.' }),
    is_planned: z.boolean(),
    batches: count,
    batches_finished: count,
  })
  .openapi('Books');

export const haltSchema = z
  .object({ reason: z.enum(haltReasons), detail: z.string() })
  .nullable()
  .openapi({ description: 'Why the service stopped this send itself; resume continues after the fix.' });

export const notificationSummarySchema = z
  .object({
    id: z.uuid(),
    state: z.enum(notificationStates),
    title: z.string().nullable(),
    in_doubt_policy: z.enum(inDoubtPolicies),
    rate_per_second: z.int().nullable(),
    scheduled_at: answeredInstantOrNull,
    launched_at: answeredInstantOrNull,
    expires_at: answeredInstantOrNull,
    finished_at: answeredInstantOrNull.openapi({ description: 'Set once every device has its outcome.' }),
    exported_at: answeredInstantOrNull.openapi({
      description: 'When its books were uploaded to object storage, where the service is set to do that.',
    }),
    halt: haltSchema,
    unreachable: z.array(unreachableHostSchema).openapi({
      description:
        'While it is sending: hosts of the providers that it has devices left for, to which no connection is to be had.',
    }),
    books: booksSchema,
    totals: z
      .object({
        outcomes: outcomeCounts,
        reasons: z.record(z.string(), z.record(z.string(), count)),
        in_doubt: count,
      })
      .nullable()
      .openapi({ description: 'Counted from the deliveries when the books closed.' }),
    created_at: answeredInstant,
    updated_at: answeredInstant,
  })
  .openapi('NotificationSummary', { description: 'A notification without its message and audience.' });

export const notificationSchema = z
  .object({
    ...notificationSummarySchema.shape,
    message: messageSchema,
    audience: notificationAudienceSchema,
    listed: listedSchema.nullable().openapi({
      description:
        'Of the ids that the audience lists: how many were found when it was last written or uploaded, and at the launch. Null when it lists none.',
    }),
  })
  .openapi('Notification');

export const notificationPageSchema = z
  .object({ notifications: z.array(notificationSummarySchema), next_cursor: nextCursor })
  .openapi('NotificationPage');

export const notificationParams = z.object({
  id: z.string().openapi({ format: 'uuid', example: '019c0000-0000-7000-8000-000000000000' }),
});

/** An id that is no UUID cannot exist: 404, like every other id that does not. */
export function checkedId(id: string): string {
  if (!isUuid(id)) throw notFound('notification');
  return id;
}

export function fromBooks(books: Notification['books']): z.infer<typeof booksSchema> {
  return {
    audience: books.audience,
    outcomes: books.outcomes,
    pending: books.pending,
    balanced: books.audience === sumOfOutcomes(books.outcomes) + books.pending && books.pending >= 0,
    is_planned: books.isPlanned,
    batches: books.batches,
    batches_finished: books.batchesFinished,
  };
}

export function fromNotification(notification: Notification): z.infer<typeof notificationSchema> {
  const { message, audience, listed } = notification;
  return {
    ...fromSummary(notification),
    message: fromMessage(message),
    audience: fromAudience(audience),
    listed: listed && fromListed(listed),
  };
}

export function fromSummary(notification: NotificationSummary): z.infer<typeof notificationSummarySchema> {
  const { totals } = notification;
  return {
    id: notification.id,
    state: notification.state,
    title: notification.title,
    in_doubt_policy: notification.inDoubtPolicy,
    rate_per_second: notification.ratePerSecond,
    scheduled_at: notification.scheduledAt?.toISOString() ?? null,
    launched_at: notification.launchedAt?.toISOString() ?? null,
    expires_at: notification.expiresAt?.toISOString() ?? null,
    finished_at: notification.finishedAt?.toISOString() ?? null,
    exported_at: notification.exportedAt?.toISOString() ?? null,
    halt: notification.halt,
    unreachable: notification.unreachable.map(fromUnreachableHost),
    books: fromBooks(notification.books),
    totals: totals && { outcomes: totals.outcomes, reasons: totals.reasons as never, in_doubt: totals.inDoubt },
    created_at: notification.createdAt.toISOString(),
    updated_at: notification.updatedAt.toISOString(),
  };
}

/** Of a CSV file: books by columns. */
export const summaryColumns = [
  ...[
    'id',
    'state',
    'title',
    'in_doubt_policy',
    'rate_per_second',
    'scheduled_at',
    'launched_at',
    'expires_at',
    'finished_at',
    'exported_at',
  ],
  ...['halt_reason', 'audience', ...outcomes, 'pending', 'in_doubt', 'created_at', 'updated_at'],
];

export function summaryCells({ halt, books, totals }: NotificationSummary): Record<string, unknown> {
  const { audience, outcomes, pending } = books;
  return { halt_reason: halt?.reason, audience, ...outcomes, pending, in_doubt: totals?.inDoubt };
}
