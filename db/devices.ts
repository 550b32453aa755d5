import { type Kysely, type Selectable, sql } from 'kysely';
import type { Condition } from '../domain/audience.ts';
import type { JsonObject } from '../domain/json.ts';
import type { DeviceRegistration } from '../domain/registration.ts';
import { conditionFilter } from './audience.ts';
import type { Database, DeviceRow } from './schema.ts';

export interface Device extends Omit<DeviceRegistration, 'registeredAt'> {
  id: number;
  appId: number;
  properties: JsonObject;
  /** 1 to 10 000, random, stays for life. */
  bucket: number;
  /** The last time that the app registered this token. */
  registeredAt: Date;
  /** Null while the device can be sent to. A retired device keeps its token as history. */
  retiredAt: Date | null;
  retiredReason: string | null;
  createdAt: Date;
  updatedAt: Date;
}

export async function findDevice(db: Kysely<Database>, appId: number, externalId: string): Promise<Device | undefined> {
  const row = await db
    .selectFrom('devices')
    .selectAll()
    .where('app_id', '=', appId)
    .where('external_id', '=', externalId)
    .executeTakeFirst();
  return row && toDevice(row);
}

/** True when there was one. Its deliveries stay in the books under its row id. */
export async function deleteDevice(db: Kysely<Database>, appId: number, externalId: string): Promise<boolean> {
  const result = await db
    .deleteFrom('devices')
    .where('app_id', '=', appId)
    .where('external_id', '=', externalId)
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}

/** Sets and removes keys; keys not named stay. Undefined: not found. */
export async function changeProperties(
  db: Kysely<Database>,
  appId: number,
  externalId: string,
  change: { set: JsonObject; remove: string[] },
): Promise<Device | undefined> {
  const row = await db
    .updateTable('devices')
    .set({
      properties: sql`(properties || ${JSON.stringify(change.set)}::jsonb) - ${change.remove}::text[]`,
      updated_at: sql`now()`,
    })
    .where('app_id', '=', appId)
    .where('external_id', '=', externalId)
    .returningAll()
    .executeTakeFirst();
  return row && toDevice(row);
}

interface DeviceSearch {
  condition?: Condition | undefined;
  externalIds?: string[] | undefined;
  userIds?: string[] | undefined;
  /** True: devices that can be sent to; false: the others; undefined: all. */
  isLive?: boolean | undefined;
  /** The last row id that is looked at. */
  upTo?: number;
}

/** In order of row id; `cursor` is the last row id of the page before. */
export async function listDevices(
  db: Kysely<Database>,
  appId: number,
  search: DeviceSearch,
  page: { cursor?: number | undefined; limit: number },
): Promise<Device[]> {
  let query = db.selectFrom('devices').selectAll().where('app_id', '=', appId).orderBy('id').limit(page.limit);
  if (page.cursor !== undefined) query = query.where('id', '>', page.cursor);
  if (search.upTo !== undefined) query = query.where('id', '<=', search.upTo);
  if (search.externalIds) query = query.where(sql<boolean>`external_id = any(${search.externalIds}::text[])`);
  if (search.userIds) query = query.where(sql<boolean>`user_id = any(${search.userIds}::text[])`);
  if (search.condition) query = query.where(conditionFilter(search.condition));
  if (search.isLive !== undefined) {
    query = query.where(sql<boolean>`(retired_at is null and device_token is not null) = ${search.isLive}::boolean`);
  }
  return (await query.execute()).map(toDevice);
}

/** Row ids that one statement looks at: most of them may be other apps', and a million take half a second. */
const idsPerQuery = 1_000_000;

/** All devices of the app, in order of row id; no statement runs long, however few of the devices are the app's. */
export async function listAllDevices(
  db: Kysely<Database>,
  appId: number,
  { isLive }: Pick<DeviceSearch, 'isLive'>,
  { cursor = 0, limit }: { cursor?: number | undefined; limit: number },
): Promise<Device[]> {
  const { rows } = await sql<{ last: number | null }>`select max(id) as last from devices`.execute(db);
  const last = rows[0]!.last ?? 0;
  const devices: Device[] = [];
  for (let from = cursor; from < last && devices.length < limit; from += idsPerQuery) {
    const page = { cursor: from, limit: limit - devices.length };
    devices.push(...(await listDevices(db, appId, { isLive, upTo: from + idsPerQuery }, page)));
  }
  return devices;
}

/** A device whose token died with this send. */
export interface Retirement {
  deviceId: number;
  /** The token that was sent to: a device that has another one by now stays alive. */
  deviceToken: string;
  /** A registration after this instant stays alive. */
  invalidAt: Date;
  reason: string;
}

/**
 * For `retire_devices`, which takes only rows that still have the token that was sent to, registered no later than the provider's
 * instant.
 */
export function retirementsAsJson(retirements: Retirement[]): string {
  return JSON.stringify(
    retirements.map(({ deviceId, deviceToken, invalidAt, reason }) => ({
      ...{ device_id: deviceId, device_token: deviceToken, invalid_at: invalidAt, reason },
    })),
  );
}

export function toDevice(row: Selectable<DeviceRow>): Device {
  return {
    id: row.id,
    appId: row.app_id,
    externalId: row.external_id,
    userId: row.user_id,
    provider: row.provider,
    platform: row.platform,
    deviceToken: row.device_token,
    apnsEnvironment: row.apns_environment,
    properties: row.properties,
    locale: row.locale,
    timeZone: row.time_zone,
    bucket: row.bucket,
    registeredAt: row.registered_at,
    retiredAt: row.retired_at,
    retiredReason: row.retired_reason,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
