import type { Kysely } from 'kysely';
import { sql } from 'kysely';
import type { Outcome } from '../domain/outcome.ts';
import { type Delivery, listDeviceDeliveries } from './deliveries.ts';
import type { Database } from './schema.ts';

/** What a device was sent: a notification or a message, one of the two ids is null. */
export interface HistoryLine extends Omit<Delivery, 'notificationId' | 'batchSeq' | 'position'> {
  notificationId: string | null;
  messageId: string | null;
}

/**
 * Notifications and messages to the device that have their outcome, newest first. `cursor` is the id of one or the other at which a page
 * was cut, for the reasons that `listDeviceDeliveries` has; null: there is nothing more.
 */
export async function listDeviceHistory(
  db: Kysely<Database>,
  appId: number,
  deviceId: number,
  page: { cursor: string | undefined; limit: number; notifications: number },
): Promise<{ lines: HistoryLine[]; cursor: string | null }> {
  const [{ deliveries, cursor: border }, messages] = await Promise.all([
    listDeviceDeliveries(db, appId, deviceId, page),
    listDeviceMessages(db, deviceId, page.cursor, page.limit + 1),
  ]);
  // What is older than the border has notifications in between that were not looked at.
  const lines = [
    ...deliveries.map((delivery) => ({ ...delivery, messageId: null })),
    ...messages.filter(({ messageId }) => border === null || messageId > border),
  ].sort((a, b) => (idOf(a) < idOf(b) ? 1 : -1));
  if (lines.length <= page.limit) return { lines, cursor: border };
  const shown = lines.slice(0, page.limit);
  return { lines: shown, cursor: idOf(shown.at(-1)!) };
}

/** UUID v7s of both kinds sort by time. */
function idOf({ notificationId, messageId }: HistoryLine): string {
  return (notificationId ?? messageId)!;
}

async function listDeviceMessages(
  db: Kysely<Database>,
  deviceId: number,
  cursor: string | undefined,
  limit: number,
): Promise<(HistoryLine & { messageId: string })[]> {
  let entries = db
    .selectFrom('message_entries as e')
    .where('e.device_id', '=', deviceId)
    .where('outcome', 'is not', null);
  if (cursor !== undefined) entries = entries.where('message_id', '<', cursor);
  const rows = await entries
    .leftJoin('devices as d', 'd.id', 'e.device_id')
    .select(['message_id', 'd.external_id', 'outcome', 'reason', 'http_status', 'attempts', 'finished_at'])
    .select(['provider_message_id', sql<boolean>`doubts > 0`.as('in_doubt')])
    .orderBy('message_id', 'desc')
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    notificationId: null,
    messageId: row.message_id,
    externalId: row.external_id,
    outcome: row.outcome as Outcome,
    reason: row.reason,
    httpStatus: row.http_status,
    providerMessageId: row.provider_message_id,
    attempts: row.attempts,
    inDoubt: row.in_doubt,
    finishedAt: row.finished_at!,
  }));
}
