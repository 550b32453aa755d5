import { type Kysely, sql } from 'kysely';
import type { ApnsEnvironment, Platform, ProviderName } from '../domain/device.ts';
import type { Claim } from './batches.ts';
import { statementTimeMs } from './clock.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/** Where a live device is reached. */
export interface Address {
  deviceToken: string;
  apnsEnvironment: ApnsEnvironment | null;
  platform: Platform;
  /** The device was changed after the launch, and may have another token since. */
  isNew: boolean;
}

/**
 * A row for all devices of a kind: a row for each device cost the worker more than all else that it does with an address.
 *
 * The conditions stand in the columns, not beside the ids, so that the primary key is the only index that serves: with statistics from
 * before a large import the planner takes the index of live tokens otherwise, and reads all of it for every call. OFFSET 0, so that they
 * are looked at once.
 */
const listAddressesStatement: PreparedStatement = {
  name: 'list_addresses',
  text: `
    select platform, apns_environment, is_new, string_agg(id::text, ' '), string_agg(device_token, ' ')
    from (
      select id, platform, apns_environment, updated_at >= $3 as is_new,
        case when provider = $1 and retired_at is null then device_token end as device_token
      from devices where id = any ($2::bigint[]) offset 0
    ) as device
    where device_token is not null group by platform, apns_environment, is_new
    union all select null, null, null, null, ${statementTimeMs}`,
};

/**
 * The live ones of these devices: on the path of every send, so nothing more is read than a send needs. `readAtMs` is by the clock
 * that sets `registered_at`: a registration after it is not among them.
 */
export async function listAddresses(
  client: StatementClient,
  provider: ProviderName,
  deviceIds: number[],
  launchedAt: Date,
): Promise<{ addresses: Map<number, Address>; readAtMs: number }> {
  const { rows } = await client.query<
    [platform: Platform, apnsEnvironment: ApnsEnvironment | null, isNew: boolean, ids: string, deviceTokens: string]
  >({
    ...listAddressesStatement,
    rowMode: 'array',
    values: [provider, numberArray(deviceIds), launchedAt],
  });
  const addresses = new Map<number, Address>();
  // The last row, of no device, brings the time.
  const readAtMs = Number(rows.pop()![4]);
  for (const [platform, apnsEnvironment, isNew, ids, joinedTokens] of rows) {
    const deviceIds = ids.split(' ');
    const deviceTokens = joinedTokens.split(' ');
    // No registration takes a token with a space; one that was put there by hand must not move the others to other devices.
    if (deviceTokens.length !== deviceIds.length) throw new Error('A device token of this batch has a space in it.');
    for (let i = 0; i < deviceIds.length; i++) {
      addresses.set(Number(deviceIds[i]), { deviceToken: deviceTokens[i]!, apnsEnvironment, platform, isNew });
    }
  }
  return { addresses, readAtMs };
}

/** The APNs environments (null: the provider's own) of a batch's live devices that have no outcome yet. */
export async function listOpenEnvironments(db: Kysely<Database>, claim: Claim): Promise<(ApnsEnvironment | null)[]> {
  const { rows } = await sql<{ apns_environment: ApnsEnvironment | null }>`
    select distinct d.apns_environment
    from batches b cross join unnest(b.device_offsets) with ordinality as member (device_offset, ordinal)
    join devices d on d.id = b.first_device_id + member.device_offset
    where b.notification_id = ${claim.notificationId} and b.seq = ${claim.seq}
      and get_bit(b.recorded, member.ordinal::integer - 1) = 0
      and case when d.provider = ${claim.provider} and d.retired_at is null then d.device_token is not null else false end
  `.execute(db);
  return rows.map((row) => row.apns_environment);
}
