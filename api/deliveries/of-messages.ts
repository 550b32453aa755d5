import { z } from '@hono/zod-openapi';
import {
  listMessageDeliveries,
  type MessageDelivery,
  type MessageDeliveryCursor,
} from '../../db/message-deliveries.ts';
import { providerNames } from '../../domain/device.ts';
import { outcomes } from '../../domain/outcome.ts';
import type { TakePlace } from '../access/places.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { answeredInstant, answeredInstantOrNull, instant, toDate } from '../http/instant.ts';
import { answerListing, formatInQuery, type Listing, listingContent, streamRule } from '../http/listing.ts';
import { limitInQuery, messageDeliveryCursor, nextCursor } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';

const lineSchema = z
  .object({
    message_id: z.uuid(),
    created_at: answeredInstant.openapi({ description: 'When the message was accepted.' }),
    external_id: z.string().nullable().openapi({ description: 'Null when the device was deleted since.' }),
    user_id: z.string().nullable().openapi({ description: 'The owner of the device now.' }),
    provider: z.enum(providerNames),
    outcome: z.enum(outcomes).nullable().openapi({ description: 'Null while it is pending.' }),
    reason: z.string().nullable().openapi({ description: "The provider's word, or ours." }),
    http_status: z.int().nullable(),
    provider_message_id: z.string().nullable(),
    attempts: z.int(),
    in_doubt: z.boolean().openapi({ description: 'The provider may have got it more than once.' }),
    not_before: answeredInstantOrNull.openapi({ description: 'When the next attempt is, after one that failed.' }),
    finished_at: answeredInstantOrNull,
  })
  .openapi('DeliveryOfMessage');

type Line = z.infer<typeof lineSchema>;

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/messages/deliveries',
  scope: 'messages:read',
  tags: ['Messages'],
  summary: 'List what became of each device of all messages',
  description: `${streamRule} Recipients without a device have no line: each message tells of them, and /v1/messages/stats counts them.`,
  request: {
    query: z.strictObject({
      cursor: messageDeliveryCursor,
      limit: limitInQuery(1_000, 100),
      since: instant.optional().openapi({ description: 'Accepted then or later.' }),
      until: instant.optional().openapi({ description: 'Accepted before.' }),
      format: formatInQuery,
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream: lane by lane, in the order in which each accepted them.',
      content: listingContent(
        z.object({ deliveries: z.array(lineSchema), next_cursor: nextCursor }).openapi('MessageDeliveryPage'),
        lineSchema.shape,
        'MessageDeliveryLine',
      ),
    },
    ...problems(),
  },
});

const linesPerQuery = 5_000;

export function messageDeliveries({ db, stopping }: ApiDependencies, takePlace: TakePlace) {
  const router = createRouter();
  router.openapi(listRoute, async (c) => {
    const { since, until, ...asked } = c.req.valid('query');
    const { id: appId } = c.var.app;
    const span = { since: toDate(since), until: toDate(until) };
    const deliveries = {
      read: (page) => listMessageDeliveries(db, appId, span, page),
      cursorAfter: ({ laneId, position }) => ({ laneId, position }),
      writeCursor: ({ laneId, position }) => `${laneId}-${position}`,
      toLine,
      columns: Object.keys(lineSchema.shape),
      linesPerQuery,
    } satisfies Listing<MessageDelivery, MessageDeliveryCursor, Line>;
    return answerListing(c, asked, deliveries, { take: () => takePlace(appId), stopping }, (lines, next_cursor) =>
      c.json({ deliveries: lines, next_cursor }, 200),
    );
  });
  // Other methods: it is not the id of a message.
  router.all(listRoute.path, (c) => c.notFound());
  return router;
}

function toLine(delivery: MessageDelivery): Line {
  return {
    message_id: delivery.messageId,
    created_at: delivery.createdAt.toISOString(),
    external_id: delivery.externalId,
    user_id: delivery.userId,
    provider: delivery.provider,
    outcome: delivery.outcome,
    reason: delivery.reason,
    http_status: delivery.httpStatus,
    provider_message_id: delivery.providerMessageId,
    attempts: delivery.attempts,
    in_doubt: delivery.inDoubt,
    not_before: delivery.notBefore?.toISOString() ?? null,
    finished_at: delivery.finishedAt?.toISOString() ?? null,
  };
}
