import { type Kysely, sql } from 'kysely';
import type { ApnsEnvironment, ProviderName } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** Where a live device is reached. */
export interface Address {
  deviceToken: string;
  apnsEnvironment: ApnsEnvironment | null;
}

/** The live ones of these devices: on the path of every send, so nothing more is read than a send needs. */
export async function listAddresses(
  db: Kysely<Database>,
  provider: ProviderName,
  deviceIds: number[],
): Promise<Map<number, Address>> {
  const rows = await db
    .selectFrom('devices')
    .select(['id', 'device_token', 'apns_environment'])
    .where('id', '=', sql<number>`any(${deviceIds}::bigint[])`)
    .where('provider', '=', provider)
    .where('retired_at', 'is', null)
    .where('device_token', 'is not', null)
    .execute();
  const addresses = new Map<number, Address>();
  for (const row of rows) {
    addresses.set(row.id, { deviceToken: row.device_token!, apnsEnvironment: row.apns_environment });
  }
  return addresses;
}
