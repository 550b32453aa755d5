import { type Kysely, sql } from 'kysely';
import type { ApnsEnvironment, ProviderName } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** Where a live device is reached. */
export interface Address {
  deviceToken: string;
  apnsEnvironment: ApnsEnvironment | null;
}

/**
 * The live ones of these devices: on the path of every send, so nothing more is read than a send needs. The conditions stand
 * in the columns, not in WHERE, so that the primary key is the only index that serves: with statistics from before a large
 * import the planner takes the index of live tokens otherwise, and reads all of it for every call.
 */
export async function listAddresses(
  db: Kysely<Database>,
  provider: ProviderName,
  deviceIds: number[],
): Promise<Map<number, Address>> {
  const rows = await db
    .selectFrom('devices')
    .select([
      'id',
      'apns_environment',
      sql<string | null>`case when provider = ${provider} and retired_at is null then device_token end`.as(
        'device_token',
      ),
    ])
    .where('id', '=', sql<number>`any(${deviceIds}::bigint[])`)
    .execute();
  const addresses = new Map<number, Address>();
  for (const { id, device_token, apns_environment } of rows) {
    if (device_token !== null) addresses.set(id, { deviceToken: device_token, apnsEnvironment: apns_environment });
  }
  return addresses;
}
