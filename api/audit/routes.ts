import { z } from '@hono/zod-openapi';
import { type AuditEntry, type AuditSearch, listAuditEntriesOfAllApps } from '../../db/audit-entries.ts';
import { whileValid } from '../access/while-valid.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { toByteStream } from '../http/byte-stream.ts';
import { answeredInstant, instant } from '../http/instant.ts';
import { isNdjson, ndjsonMediaType, toNdjson } from '../http/ndjson.ts';
import { limitInQuery, nextCursor, readPage, uuidCursor } from '../http/paging.ts';
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

const auditRoute = defineRoute({
  method: 'get',
  path: '/v1/audit',
  scope: 'admin',
  tags: ['Audit'],
  summary: 'Show who changed what, newest first',
  description:
    'Pages as JSON. With Accept: application/x-ndjson all of it in one stream, from the cursor on; limit does not apply then. Messages and registrations of devices are not here: their rows are their own record.',
  request: {
    query: z.strictObject({
      cursor: uuidCursor,
      limit: limitInQuery(1_000, 100),
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
      content: {
        'application/json': {
          schema: z.object({ entries: z.array(entrySchema), next_cursor: nextCursor }).openapi('AuditPage'),
        },
        'application/x-ndjson': { schema: entrySchema },
      },
    },
    ...problems(),
  },
});

/** One query's worth of memory. */
const linesPerQuery = 5_000;

export function audit({ db, stopping }: ApiDependencies) {
  const list = (search: AuditSearch, page: { cursor?: string | undefined; limit: number }) =>
    listAuditEntriesOfAllApps(db, search, page);

  async function* stream(search: AuditSearch, from: string | undefined): AsyncGenerator<string> {
    for (let cursor = from; ; ) {
      // A stream cut short must not look like one that ended.
      stopping?.throwIfAborted();
      const page = await list(search, { cursor, limit: linesPerQuery });
      if (page.length > 0) yield page.map((entry) => toNdjson(fromEntry(entry))).join('');
      if (page.length < linesPerQuery) return;
      cursor = page.at(-1)!.id;
    }
  }

  return createRouter().openapi(auditRoute, async (c) => {
    const { cursor, limit, app, actor, action, target_kind, target_id, since, until } = c.req.valid('query');
    const search = {
      ...{ appName: app, actor, action, targetKind: target_kind, targetId: target_id },
      ...{ since: since === undefined ? undefined : new Date(since) },
      ...{ until: until === undefined ? undefined : new Date(until) },
    };
    if (c.req.header('accept')?.split(',').some(isNdjson)) {
      const lines = toByteStream(whileValid(stream(search, cursor), c.var.isStillValid));
      return c.body(lines, 200, { 'Content-Type': ndjsonMediaType }) as never;
    }
    const { items, next_cursor } = await readPage(
      limit,
      (limit) => list(search, { cursor, limit }),
      ({ id }) => id,
    );
    return c.json({ entries: items.map(fromEntry), next_cursor }, 200);
  });
}

function fromEntry({ id, at, appName, actor, action, target, changes }: AuditEntry): z.infer<typeof entrySchema> {
  return {
    ...{ id, at: at.toISOString(), app: appName, actor: { kind: actor.kind, id: actor.id } },
    ...{ request_id: actor.requestId, address: actor.address, action, target, changes },
  };
}
