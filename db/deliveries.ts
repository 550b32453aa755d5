import type { Kysely } from 'kysely';
import type { Outcome } from '../domain/outcome.ts';
import type { DeliveryRecord } from './record-deliveries.ts';
import type { Database } from './schema.ts';

export interface Delivery extends DeliveryRecord {
  notificationId: string;
  batchSeq: number;
  finishedAt: Date;
  /** Null when the device was deleted since. */
  externalId: string | null;
}

/** Outcomes of one notification of the app in order of device id; `cursor` is the last device id of the page before. */
export async function listDeliveries(
  db: Kysely<Database>,
  appId: number,
  notificationId: string,
  page: { cursor?: number | undefined; limit: number; outcome?: Outcome | undefined; reason?: string | undefined },
): Promise<Delivery[]> {
  const ofApp = db.selectFrom('notifications').where('id', '=', notificationId).where('app_id', '=', appId);
  let query = selectDeliveries(db)
    .where('deliveries.notification_id', '=', notificationId)
    .where(({ exists }) => exists(ofApp))
    .orderBy('deliveries.device_id')
    .limit(page.limit);
  if (page.cursor !== undefined) query = query.where('deliveries.device_id', '>', page.cursor);
  if (page.outcome !== undefined) query = query.where('outcome', '=', page.outcome);
  if (page.reason !== undefined) query = query.where('reason', '=', page.reason);
  return (await query.execute()).map(toDelivery);
}

/**
 * What the device was sent, newest first: a probe of the primary key for each notification of the app, instead of an index that
 * every send would pay for. Looks at `notifications` of them at most. `cursor` is the id of the notification at which a page was
 * cut, by its length or by that limit, and what comes after it is on the next; null: there is nothing more.
 */
export async function listDeviceDeliveries(
  db: Kysely<Database>,
  appId: number,
  deviceId: number,
  page: { cursor: string | undefined; limit: number; notifications: number },
): Promise<{ deliveries: Delivery[]; cursor: string | null }> {
  let candidates = db
    .selectFrom('notifications')
    .select('id')
    .where('app_id', '=', appId)
    .where('state', '<>', 'draft');
  if (page.cursor !== undefined) candidates = candidates.where('id', '<', page.cursor);
  candidates = candidates.orderBy('id', 'desc');
  const border = await candidates
    .offset(page.notifications - 1)
    .limit(2)
    .execute();
  const last = border.length === 2 ? border[0]!.id : null;
  const rows = await selectDeliveries(db)
    .where('deliveries.device_id', '=', deviceId)
    .where('deliveries.notification_id', 'in', candidates.limit(page.notifications))
    .orderBy('deliveries.notification_id', 'desc')
    .limit(page.limit + 1)
    .execute();
  const shown = rows.slice(0, page.limit);
  return {
    deliveries: shown.map(toDelivery),
    cursor: rows.length > page.limit ? shown.at(-1)!.notification_id : last,
  };
}

function selectDeliveries(db: Kysely<Database>) {
  return db
    .selectFrom('deliveries')
    .leftJoin('devices', 'devices.id', 'deliveries.device_id')
    .selectAll('deliveries')
    .select('devices.external_id');
}

function toDelivery(row: Awaited<ReturnType<ReturnType<typeof selectDeliveries>['execute']>>[number]): Delivery {
  return {
    deviceId: row.device_id,
    externalId: row.external_id,
    notificationId: row.notification_id,
    batchSeq: row.batch_seq,
    outcome: row.outcome,
    reason: row.reason,
    httpStatus: row.http_status,
    providerMessageId: row.provider_message_id,
    attempts: row.attempts,
    inDoubt: row.in_doubt,
    finishedAt: row.finished_at,
  };
}
