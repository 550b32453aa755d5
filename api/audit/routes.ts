import { z } from '@hono/zod-openapi';
import { type AuditEntry, listAuditEntriesOfAllApps } from '../../db/audit-entries.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { answeredInstant, instant, toDate } from '../http/instant.ts';
import { answerListing, formatInQuery, type Listing, listingContent, streamRule } from '../http/listing.ts';
import { limitInQuery, nextCursor, uuidCursor } from '../http/paging.ts';
import { problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';

const word = z.string().min(1).max(255).optional();

const entrySchema = z
  .object({
    id: z.uuid(),
    at: answeredInstant,
    app: z.string().nullable().openapi({ description: 'As it was called then; null: of the installation.' }),
    actor: z.object({
      kind: z.enum(['key', 'jwt', 'operator', 'worker']),
      id: z.string().openapi({ description: 'The id of the key, the subject of the JWT, the name of the operator.' }),
    }),
    request_id: z.string().nullable(),
    address: z.string().nullable().openapi({ description: 'Of the network, as far as it is known.' }),
    action: z.string().openapi({ example: 'notification.launch' }),
    target: z.object({ kind: z.string(), id: z.string() }),
    changes: z.record(z.string(), z.unknown()).openapi({
      description: 'What is different, often as {"from": …, "to": …}; never a secret or the text of a message.',
    }),
  })
  .openapi('AuditEntry');

const pageSchema = z.object({ entries: z.array(entrySchema), next_cursor: nextCursor }).openapi('AuditPage');

const auditRoute = defineRoute({
  method: 'get',
  path: '/v1/audit',
  scope: 'admin',
  tags: ['Audit'],
  summary: 'Show who changed what, newest first',
  description: `${streamRule} Messages and registrations of devices are not here: their rows are their own record.`,
  request: {
    query: z.strictObject({
      cursor: uuidCursor,
      limit: limitInQuery(1_000, 100),
      format: formatInQuery,
      app: word.openapi({ description: 'Its name then, also when it is gone.' }),
      actor: word.openapi({ description: 'The id of a key, the subject of a JWT, the name of an operator.' }),
      action: word.openapi({ example: 'notification.launch' }),
      target_kind: word.openapi({ example: 'notification' }),
      target_id: word,
      since: instant.optional().openapi({ description: 'Included.' }),
      until: instant.optional().openapi({ description: 'Not included.' }),
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream.',
      content: listingContent(pageSchema, entrySchema.shape, 'AuditLine'),
    },
    ...problems(),
  },
});

const columns = [
  ...[
    'id',
    'at',
    'app',
    'actor_kind',
    'actor_id',
    'request_id',
    'address',
    'action',
    'target_kind',
    'target_id',
    'changes',
  ],
];
const linesPerQuery = 5_000;

export function audit({ db, stopping }: ApiDependencies) {
  return createRouter().openapi(auditRoute, async (c) => {
    const { cursor, limit, format, app, actor, action, target_kind, target_id, since, until } = c.req.valid('query');
    const search = {
      ...{ appName: app, actor, action, targetKind: target_kind, targetId: target_id },
      ...{ since: toDate(since), until: toDate(until) },
    };
    const entries = {
      read: (page) => listAuditEntriesOfAllApps(db, search, page),
      cursorAfter: ({ id }) => id,
      toLine: fromEntry,
      columns,
      toCells: (_, { actor, target }) => ({
        ...{ actor_kind: actor.kind, actor_id: actor.id, target_kind: target.kind, target_id: target.id },
      }),
      linesPerQuery,
    } satisfies Listing<AuditEntry, string, ReturnType<typeof fromEntry>>;
    return answerListing(c, { cursor, limit, format }, entries, { stopping }, (lines, next_cursor) =>
      c.json({ entries: lines, next_cursor }, 200),
    );
  });
}

function fromEntry({ id, at, appName, actor, action, target, changes }: AuditEntry): z.infer<typeof entrySchema> {
  return {
    ...{ id, at: at.toISOString(), app: appName, actor: { kind: actor.kind, id: actor.id } },
    ...{ request_id: actor.requestId, address: actor.address, action, target, changes },
  };
}
