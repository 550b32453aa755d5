import { z } from '@hono/zod-openapi';
import type { Kysely } from 'kysely';
import {
  addToAudienceList,
  beginAudienceList,
  dropAudienceList,
  finishAudienceList,
  type ListedId,
} from '../../db/audience-lists.ts';
import { databaseErrorCode } from '../../db/database-error.ts';
import { findNotification } from '../../db/notifications.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Actor } from '../../domain/actor.ts';
import type { ListedCounts } from '../../domain/notification.ts';
import type { TakePlace } from '../access/places.ts';
import { whileValid } from '../access/while-valid.ts';
import { listedCountsSchema } from '../audiences/schemas.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';
import { checkLine, ndjsonBody, parseLine } from '../http/ndjson.ts';
import type { NdjsonLine } from '../http/ndjson-lines.ts';
import { bodyProblems, problems } from '../http/problem-schema.ts';
import { createRouter, defineRoute } from '../http/router.ts';
import { recordNotificationChange } from './carry-out.ts';
import { checkedId, notificationParams } from './schemas.ts';
import { stateConflict } from './state-conflict.ts';

/** Ids looked up by one statement. */
const idsPerStatement = 10_000;

const id = z.string().min(1).max(255);
const lineSchema = z
  .union([z.strictObject({ external_id: id }), z.strictObject({ user_id: id })])
  .openapi('AudienceListLine', { example: { external_id: 'phone-4711' } });

const uploadRoute = defineRoute({
  method: 'put',
  path: '/v1/notifications/{id}/audience-list',
  scope: 'notifications:write',
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

export function audienceList({ db }: ApiDependencies, takePlace: TakePlace) {
  return createRouter().openapi(uploadRoute, async (c) => {
    const lines = whileValid(ndjsonBody(c.req.raw), c.var.isStillValid);
    const { id: appId } = c.var.app;
    const notificationId = checkedId(c.req.valid('param').id);
    const leavePlace = takePlace(appId);
    return c.json(await upload(db, c.var.actor, appId, notificationId, lines).finally(leavePlace), 200);
  });
}

async function upload(
  db: Kysely<Database>,
  actor: Actor,
  appId: number,
  notificationId: string,
  lines: AsyncIterable<NdjsonLine[]>,
): Promise<ListedCounts> {
  const refusal = () => whyRefused(db, appId, notificationId);
  const listId = await beginAudienceList(db, appId, notificationId);
  if (listId === undefined) throw await refusal();
  try {
    const counts = await addAll(lines, (ids) => addToAudienceList(db, appId, listId, ids));
    const isDone = await inTransaction(db, async (trx) => {
      if (!(await finishAudienceList(trx, appId, notificationId, listId, counts))) return false;
      await recordNotificationChange(trx, actor, 'upload_list', { appId, id: notificationId }, { ...counts });
      return true;
    });
    if (!isDone) throw await refusal();
    return counts;
  } catch (error) {
    await dropAudienceList(db, listId).catch(() => {});
    throw isListGone(error) ? await refusal() : error;
  }
}

async function whyRefused(db: Kysely<Database>, appId: number, notificationId: string): Promise<ApiError> {
  const found = await findNotification(db, appId, notificationId);
  if (!found) return notFound('notification');
  if (found.state !== 'draft') return stateConflict('another list', found);
  if (!found.audience.uploaded) {
    return invalidField('audience.uploaded', 'The audience of this draft does not ask for an uploaded list.');
  }
  return new ApiError(409, 'notification_state', 'Another upload for this notification ended before this one.', {
    extra: { state: found.state },
  });
}

async function addAll(
  lines: AsyncIterable<NdjsonLine[]>,
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
  for await (const block of lines) {
    for (const line of block) {
      ids.push(toListedId(line));
      if (ids.length >= idsPerStatement) await flush();
    }
  }
  if (ids.length > 0) await flush();
  return total;
}

/** @throws {ApiError} 400, 413 or 422, naming the line. */
function toListedId(source: NdjsonLine): ListedId {
  try {
    const given = checkLine(parseLine(source), lineSchema);
    return 'external_id' in given ? { externalId: given.external_id } : { userId: given.user_id };
  } catch (error) {
    throw error instanceof ApiError ? ofLine(source.line, error) : error;
  }
}

function ofLine(line: number, { status, code, field, message, cause }: ApiError): ApiError {
  const name = `line ${line}`;
  if (status === 422) return invalidField(field ? `${name}: ${field}` : name, message);
  return new ApiError(status, code, `${name}: ${message}`, { field: name, cause });
}

/** A list was replaced, or its draft deleted, while it was uploaded: foreign_key_violation. */
function isListGone(error: unknown): boolean {
  return databaseErrorCode(error) === '23503';
}
