import { createRoute, z } from '@hono/zod-openapi';
import {
  addToAudienceList,
  beginAudienceList,
  dropAudienceList,
  finishAudienceList,
  type ListedId,
} from '../../db/audience-lists.ts';
import { findNotification } from '../../db/notifications.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { ListedCounts } from '../../domain/notification.ts';
import { listedCountsSchema } from '../audiences/schemas.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { checkNdjson } from '../devices/import.ts';
import { bytesOf, decodedBody } from '../http/byte-stream.ts';
import { type NdjsonLine, ndjsonLines } from '../http/ndjson-lines.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { ApiError, invalidField, notFound } from '../http/problems.ts';
import { createRouter } from '../http/router.ts';
import { findUnstorable, parseJson } from '../http/storable.ts';
import { toApiError as toValidationError } from '../http/validation.ts';
import { stateConflict } from './moves.ts';
import { checkedId, notificationParams } from './schemas.ts';

/** Ids looked up by one statement. */
const idsPerStatement = 10_000;

const id = z.string().min(1).max(255);
const lineSchema = z
  .union([z.strictObject({ external_id: id }), z.strictObject({ user_id: id })])
  .openapi('AudienceListLine', { example: { external_id: 'phone-4711' } });

const uploadRoute = createRoute({
  method: 'put',
  path: '/v1/notifications/{id}/audience-list',
  tags: ['Notifications'],
  summary: 'Upload the list of a draft',
  description:
    'For more ids than a body holds: one JSON object a line (NDJSON), {"external_id": "…"} or {"user_id": "…"}, of any length, also with Content-Encoding: gzip. The audience of the draft must say "uploaded": true; then it is those devices of the list that meet its other parts. Ids are looked up while they come: a device that registers later is not in the list. All or nothing: an upload that breaks off or has a line that is wrong changes nothing, one that ends replaces the list before it.',
  request: {
    params: notificationParams,
    body: { required: true, content: { 'application/x-ndjson': { schema: lineSchema } } },
  },
  responses: {
    200: {
      description: 'The list is there.',
      content: { 'application/json': { schema: listedCountsSchema } },
    },
    ...problems(404, 409, ...bodyProblems),
  },
});

export function audienceList({ db }: ApiDependencies) {
  return createRouter().openapi(uploadRoute, async (c) => {
    checkNdjson(c.req.header('content-type'));
    const body = decodedBody(c.req.raw);
    const { appId } = c.var.caller;
    const notificationId = checkedId(c.req.valid('param').id);
    const listId = await beginAudienceList(db, appId, notificationId);
    if (listId === undefined) throw await refusal(notificationId);
    try {
      const counts = await addAll(bytesOf(body), (ids) => addToAudienceList(db, appId, listId, ids));
      const isDone = await inTransaction(db, (trx) => finishAudienceList(trx, appId, notificationId, listId, counts));
      if (!isDone) throw await refusal(notificationId);
      return c.json(counts, 200);
    } catch (error) {
      await dropAudienceList(db, listId).catch(() => {});
      throw isListGone(error) ? await refusal(notificationId) : error;
    }

    async function refusal(notification: string): Promise<ApiError> {
      const found = await findNotification(db, appId, notification);
      if (!found) return notFound('notification');
      if (found.state !== 'draft') return stateConflict('another list', found);
      if (found.audience.uploaded) {
        return new ApiError(409, 'notification_state', 'Another upload for this notification ended before this one.', {
          extra: { state: found.state },
        });
      }
      return invalidField('audience.uploaded', 'The audience of this draft does not ask for an uploaded list.');
    }
  });
}

async function addAll(
  blocks: AsyncIterable<Uint8Array>,
  add: (ids: ListedId[]) => Promise<ListedCounts>,
): Promise<ListedCounts> {
  const total = { listed: 0, matched: 0, live: 0 };
  let ids: ListedId[] = [];
  async function flush(): Promise<void> {
    const { listed, matched, live } = await add(ids);
    total.listed += listed;
    total.matched += matched;
    total.live += live;
    ids = [];
  }
  for await (const lines of ndjsonLines(blocks)) {
    for (const line of lines) {
      ids.push(toListedId(line));
      if (ids.length >= idsPerStatement) await flush();
    }
  }
  if (ids.length > 0) await flush();
  return total;
}

/** @throws {ApiError} 400, 413 or 422, naming the line. */
function toListedId({ line, text, error }: NdjsonLine): ListedId {
  const field = `line ${line}`;
  if (error) throw new ApiError(error.status, error.code, `${field}: ${error.message}`, { field });
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (cause) {
    throw new ApiError(400, 'malformed_json', `${field}: Not valid JSON.`, { field, cause });
  }
  const unstorable = findUnstorable(value);
  if (unstorable) throw invalidField(`${field}: ${unstorable.field}`, unstorable.message);
  const result = lineSchema.safeParse(value);
  if (!result.success) {
    const problem = toValidationError(result.error.issues);
    throw invalidField(problem.field ? `${field}: ${problem.field}` : field, problem.message);
  }
  return 'external_id' in result.data ? { externalId: result.data.external_id } : { userId: result.data.user_id };
}

/** A list was replaced, or its draft deleted, while it was uploaded: foreign_key_violation. */
function isListGone(error: unknown): boolean {
  return (error as { code?: unknown }).code === '23503';
}
