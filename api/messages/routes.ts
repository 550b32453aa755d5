import { z } from '@hono/zod-openapi';
import type { MiddlewareHandler } from 'hono';
import { messageIntake } from '../../db/accept-messages.ts';
import { recordChange } from '../../db/audit-entries.ts';
import { listEndedByThisOfAnyApp } from '../../db/ended-entries.ts';
import {
  cancelMessage,
  type DirectMessage,
  findPendingOfAllApps,
  listMessages,
  messageReader,
} from '../../db/messages.ts';
import { inTransaction } from '../../db/transaction.ts';
import { countRecorded } from '../../telemetry/delivery-metrics.ts';
import { acceptedMessages } from '../../telemetry/http-metrics.ts';
import { whileValid } from '../access/while-valid.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { invalidField, notFound } from '../http/api-error.ts';
import { toByteStream } from '../http/byte-stream.ts';
import type { AppEnv } from '../http/env.ts';
import { idempotencyKey } from '../http/idempotency.ts';
import { instant, toDate } from '../http/instant.ts';
import { isNdjson, ndjsonBody, ndjsonMediaType } from '../http/ndjson.ts';
import { limitInQuery, readPage, uuidCursor } from '../http/paging.ts';
import { preferredWait } from '../http/prefer.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { runIntake } from './intake-run.ts';
import { justAccepted, refusalOf, toNewMessage } from './new-message.ts';
import { OutcomeWaiters } from './outcome-waiters.ts';
import {
  acceptedMessageSchema,
  cancelledMessageSchema,
  checkedMessageId,
  directMessageSchema,
  fromAcceptedMessage,
  fromDirectMessage,
  messageLineSchema,
  messagePageSchema,
  messageParams,
  newMessageSchema,
  recipientId,
} from './schemas.ts';

const tags = ['Messages'];

const maxWaitSeconds = 30;

const acceptedLineSchema = z
  .object({
    line: z.int().openapi({ description: 'Counted from 1, blank lines included.' }),
    id: z.uuid(),
    deliveries: z.int().optional().openapi({ description: 'Devices that it goes to. Left out with `repeated`.' }),
    skipped: z
      .array(z.object({ external_id: z.string().nullable(), user_id: z.string().optional(), reason: z.string() }))
      .optional()
      .openapi({ description: 'Recipients without a device, if any.' }),
    repeated: z.literal(true).optional().openapi({ description: 'It was accepted earlier under the same key.' }),
  })
  .openapi('MessageLineAccepted');

const failedLineSchema = z
  .object({ line: z.int(), code: z.string(), field: z.string(), message: z.string() })
  .openapi('MessageLineFailed');

const summarySchema = z
  .object({
    accepted: z.int(),
    repeated: z.int().openapi({ description: 'Accepted earlier under the same key.' }),
    failed: z.int(),
    lines: z.int().openapi({ description: 'Lines read, blank ones not counted.' }),
    complete: z.boolean().openapi({ description: 'False: it ended early, `code` and `message` say why.' }),
    code: z.string().optional(),
    message: z.string().optional(),
  })
  .openapi('MessageLinesSummary');

const text = { schema: { type: 'string' as const } };
const applied = {
  'Preference-Applied': { ...text, description: 'The wait that was granted, where one was asked for.' },
};
const location = { Location: { ...text, description: 'The path of the message.' } };
const oneAccepted = { 'application/json': { schema: acceptedMessageSchema } };

/** Lines are answered here, before the schemas of a single message look at them. */
const takesLines =
  (deps: ApiDependencies): MiddlewareHandler<AppEnv> =>
  async (c, next) => {
    if (!isNdjson(c.req.header('content-type'))) return next();
    if (c.req.header('idempotency-key') !== undefined) {
      throw invalidField('idempotency-key', 'Each line has an idempotency_key of its own.');
    }
    const answers = runIntake(deps, c.var.app, whileValid(ndjsonBody(c.req.raw), c.var.isStillValid));
    return c.body(toByteStream(answers), 200, { 'Content-Type': ndjsonMediaType });
  };

const postRoute = defineRoute({
  method: 'post',
  path: '/v1/messages',
  scope: 'messages:send',
  tags,
  summary: 'Send to one person, or a few',
  description:
    'Accepted is stored: it is sent at once, and again after any crash. As NDJSON any number of messages, a line each, answered by a line each as they are stored, in order, at the end one summary. Read that answer while sending.',
  request: {
    headers: z.object({
      'idempotency-key': idempotencyKey,
      prefer: z
        .string()
        .optional()
        .openapi({
          description: `RFC 7240. wait=10: answer once every device has its outcome, or after ten seconds; ${maxWaitSeconds} at most.`,
          example: 'wait=10',
        }),
    }),
    body: {
      required: true,
      content: {
        'application/json': { schema: newMessageSchema },
        'application/x-ndjson': { schema: messageLineSchema },
      },
    },
  },
  responses: {
    200: {
      description: 'With Prefer: wait, every device has its outcome. Of NDJSON: a line for each, then the summary.',
      headers: { ...location, ...applied },
      content: {
        ...oneAccepted,
        'application/x-ndjson': { schema: z.union([acceptedLineSchema, failedLineSchema, summarySchema]) },
      },
    },
    202: {
      description: 'Accepted, by this request or an earlier one under this key.',
      headers: { ...location, ...applied },
      content: oneAccepted,
    },
    ...problems(409, ...bodyProblems),
  },
});

const listRoute = defineRoute({
  method: 'get',
  path: '/v1/messages',
  scope: 'messages:read',
  tags,
  summary: 'List the messages to a user or a device, newest first',
  description:
    'Give either user_id or external_id. Found by the devices that they have now: what went to a device that was deleted since is not among them.',
  request: {
    query: z.strictObject({
      user_id: recipientId.optional(),
      external_id: recipientId.optional(),
      since: instant.optional(),
      cursor: uuidCursor,
      limit: limitInQuery(100, 20),
    }),
  },
  responses: {
    200: { description: 'A page.', content: { 'application/json': { schema: messagePageSchema } } },
    ...problems(),
  },
});

const getRoute = defineRoute({
  method: 'get',
  path: '/v1/messages/{id}',
  scope: 'messages:read',
  tags,
  summary: 'Show a message and what became of it',
  request: { params: messageParams },
  responses: {
    200: { description: 'The message.', content: { 'application/json': { schema: directMessageSchema } } },
    ...problems(404),
  },
});

const deleteRoute = defineRoute({
  method: 'delete',
  path: '/v1/messages/{id}',
  scope: 'messages:send',
  tags,
  summary: 'Cancel what was not sent yet',
  description:
    'Devices for which it was not handed to the provider end as cancelled, or as unknown where the provider may have got it before. The others go on. A repeat is harmless.',
  request: { params: messageParams },
  responses: {
    200: {
      description: 'The message as it is now.',
      content: { 'application/json': { schema: cancelledMessageSchema } },
    },
    ...problems(404),
  },
});

export function messages(deps: ApiDependencies) {
  const { db, pool, stopping } = deps;
  const accept = messageIntake(pool);
  const find = messageReader(pool);
  const waiters = new OutcomeWaiters((ids) => findPendingOfAllApps(pool, ids), stopping);

  async function get(appId: number, id: string): Promise<DirectMessage> {
    const message = await find(appId, id);
    if (!message) throw notFound('message');
    return message;
  }

  return createRouter()
    .openapi({ ...postRoute, middleware: takesLines(deps) }, async (c) => {
      const { id: appId } = c.var.app;
      const { 'idempotency-key': key, prefer } = c.req.valid('header');
      const asked = toNewMessage(c.var.app, c.req.valid('json'), key);
      const answer = await accept(asked);
      const refusal = refusalOf(asked, answer);
      if (refusal) throw refusal;
      if (answer.kind === 'accepted') acceptedMessages.inc({ by: 'request' });
      let message =
        answer.kind === 'accepted' ? justAccepted(asked, answer) : await get(appId, (answer as { id: string }).id);
      c.header('Location', `/v1/messages/${message.id}`);
      const seconds = preferredWait(prefer, maxWaitSeconds);
      if (seconds === undefined) return c.json(fromAcceptedMessage(message), 202);
      c.header('Preference-Applied', `wait=${seconds}`);
      if (!hasEnded(message)) {
        await waiters.wait(message.id, seconds * 1000, c.req.raw.signal);
        // It is accepted, even if the database is away by now.
        message = (await find(appId, message.id).catch(() => undefined)) ?? message;
      }
      return c.json(fromAcceptedMessage(message), hasEnded(message) ? 200 : 202);
    })
    .openapi(listRoute, async (c) => {
      const { user_id: userId, external_id: externalId, since, cursor, limit } = c.req.valid('query');
      if (userId !== undefined && externalId !== undefined) throw invalidField('user_id', eitherOfTwo);
      const search = externalId !== undefined ? { externalId } : userId !== undefined ? { userId } : undefined;
      if (!search) throw invalidField('external_id', eitherOfTwo);
      const after = { since: toDate(since), cursor };
      const { items, next_cursor } = await readPage(
        limit,
        (limit) => listMessages(db, pool, c.var.app.id, search, { ...after, limit }),
        ({ id }) => id,
      );
      return c.json({ messages: items.map(fromDirectMessage), next_cursor }, 200);
    })
    .openapi(getRoute, async (c) => {
      const id = checkedMessageId(c.req.valid('param').id);
      return c.json(fromDirectMessage(await get(c.var.app.id, id)), 200);
    })
    .openapi(deleteRoute, async (c) => {
      const { id: appId } = c.var.app;
      const id = checkedMessageId(c.req.valid('param').id);
      const { cancelled, ended } = await inTransaction(db, async (trx) => {
        const devices = await cancelMessage(trx, appId, id);
        if (devices === undefined) throw notFound('message');
        const target = { kind: 'message', id };
        if (devices > 0)
          await recordChange(trx, c.var.actor, { appId, action: 'message.cancel', target, changes: { devices } });
        return { cancelled: devices, ended: devices > 0 ? await listEndedByThisOfAnyApp(trx, { messageId: id }) : [] };
      });
      for (const { provider, devices, ...end } of ended) {
        countRecorded({ app: c.var.app.name, provider }, end, devices);
      }
      return c.json({ ...fromDirectMessage(await get(appId, id)), cancelled }, 200);
    });
}

const eitherOfTwo = 'Give either user_id or external_id.';

function hasEnded({ entries }: DirectMessage): boolean {
  return entries.every(({ outcome }) => outcome !== null);
}
