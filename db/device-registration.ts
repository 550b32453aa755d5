import { type Kysely, sql, type Transaction } from 'kysely';
import { inGroups } from '../domain/in-groups.ts';
import type { JsonObject } from '../domain/json.ts';
import { type DeviceRegistration, keysOf } from '../domain/registration.ts';
import { isRefusedByDatabase } from './database-error.ts';
import { type Device, toDevice } from './devices.ts';
import { ownsTokenOf } from './live-token.ts';
import type { PreparedStatement, StatementClient } from './prepared-statement.ts';
import { registrationColumns } from './registration-columns.ts';
import type { Database } from './schema.ts';
import { lockDevices, storeRegistrations } from './stored-registrations.ts';
import { inTransaction, isLostRace } from './transaction.ts';

interface RegisteredDevice {
  device: Device;
  isNew: boolean;
}

/**
 * Registers one device as its app does: its token becomes its own, the device that had it before is retired as `token_moved`.
 * Registrations that come while others are being stored are stored together: a round trip and a commit cost more than a row.
 * One waits for an import only where that is storing the very device or token.
 */
export function deviceRegistrar({ db, pool }: { db: Kysely<Database>; pool: StatementClient }) {
  const registerOrdinary = inGroups((group: AppRegistration[]) => registerOrdinaryOnes(pool, group), maxGroup);
  return async (appId: number, registration: DeviceRegistration): Promise<RegisteredDevice> => {
    const device = await registerOrdinary({ appId, ...registration });
    return device ?? inTransaction(db, (trx) => registerInTurn(trx, appId, registration));
  };
}

interface AppRegistration extends DeviceRegistration {
  appId: number;
}

/** Rows of one statement: some ten milliseconds at most. */
const maxGroup = 100;

/**
 * Nearly every registration is of a new device, or of one that is known, and of a token that no other device has: then it is one
 * row, as the app says it. Where the token has another owner or another transaction holds the device, no row comes back. It
 * does not wait: `skip locked` for what is stored, and for what is being inserted no longer than `lock_timeout`, because a
 * registration must not wait for what concerns only its neighbours.
 */
const registerDevicesStatement: PreparedStatement = {
  name: 'register_devices',
  text: `
    with said as materialized (
      select said.*, own.id as own,
        pg_try_advisory_xact_lock(hashtextextended(concat_ws(' ', 'device', app_id, external_id), 0))
        and pg_try_advisory_xact_lock(
          hashtextextended(concat_ws(' ', 'token', app_id, provider, coalesce(device_token, external_id)), 0)
        )
        and owner.id is null as is_ordinary
      from set_config('lock_timeout', '50ms', true),
        unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[],
          $9::text[], $10::text[])
        as said (app_id, external_id, user_id, provider, platform, device_token, apns_environment, properties, locale,
          time_zone)
      left join lateral (
        select id from devices where app_id = said.app_id and external_id = said.external_id limit 1
      ) own on true
      left join lateral (
        select id from devices owner where ${ownsTokenOf('said')} and owner.external_id <> said.external_id limit 1
      ) owner on true
    ), free as materialized (
      select id from devices where id = any (array(select own from said where is_ordinary)) for update skip locked
    ), known as (
      update devices set user_id = said.user_id, provider = said.provider, platform = said.platform,
        device_token = said.device_token, apns_environment = said.apns_environment,
        properties = coalesce(said.properties, devices.properties), locale = said.locale, time_zone = said.time_zone,
        registered_at = now(), retired_at = null, retired_reason = null, updated_at = now()
      from said join free on free.id = said.own
      where devices.id = free.id
      returning false as is_new, devices.*
    ), added as (
      insert into devices (app_id, external_id, user_id, provider, platform, device_token, apns_environment, properties,
        locale, time_zone)
      select app_id, external_id, user_id, provider, platform, device_token, apns_environment, coalesce(properties, '{}'),
        locale, time_zone
      from said where own is null and is_ordinary
      on conflict do nothing
      returning true as is_new, devices.*
    )
    select app_id, external_id, is_new, id, bucket, properties, registered_at, created_at
    from (select * from known union all select * from added) as stored`,
};

type StoredRow = [
  ...[appId: number, externalId: string, isNew: boolean, id: number, bucket: number, properties: JsonObject],
  ...[registeredAt: Date, createdAt: Date],
];

/** Undefined, for each that is no ordinary one: nothing is stored of it then. */
async function registerOrdinaryOnes(
  client: StatementClient,
  registrations: AppRegistration[],
): Promise<(RegisteredDevice | undefined)[]> {
  const alone = withoutRepeats(registrations);
  const stored = await client
    .query<StoredRow>({
      ...registerDevicesStatement,
      rowMode: 'array',
      values: [alone.map(({ appId }) => appId), ...registrationColumns(alone)],
    })
    .catch((error: unknown) => {
      // One of them is at fault or was too late: each is tried by itself.
      if (isLostRace(error) || isRefusedByDatabase(error) || isLockTimeout(error)) return undefined;
      throw error;
    });
  const byKey = new Map(stored?.rows.map((row) => [`${row[0]} ${row[1]}`, row]));
  const mayBeStored = new Set(alone);
  return registrations.map((registration) => {
    const row = mayBeStored.has(registration) && byKey.get(`${registration.appId} ${registration.externalId}`);
    if (!row) return undefined;
    const [, , isNew, id, bucket, properties, registeredAt, createdAt] = row;
    const stored = { id, bucket, properties, registeredAt, createdAt, updatedAt: registeredAt };
    return { device: { ...registration, ...stored, retiredAt: null, retiredReason: null }, isNew };
  });
}

/** The first one of each device and of each token. */
function withoutRepeats(registrations: AppRegistration[]): AppRegistration[] {
  const seen = new Set<string>();
  return registrations.filter((registration) => {
    const keys = keysOf(registration).map((key) => `${registration.appId} ${key}`);
    const isRepeat = keys.some((key) => seen.has(key));
    for (const key of keys) seen.add(key);
    return !isRepeat;
  });
}

function isLockTimeout(error: unknown): boolean {
  return (error as { code?: unknown }).code === '55P03';
}

/**
 * The careful way. Registrations of the same token or device that come here wait for each other.
 * @throws an error that `inTransaction` runs again, when another request was first with the device or the token
 */
async function registerInTurn(
  trx: Transaction<Database>,
  appId: number,
  registration: DeviceRegistration,
): Promise<RegisteredDevice> {
  const { externalId, provider, deviceToken } = registration;
  const { rows } = await sql<{ now: Date }>`
    select pg_advisory_xact_lock(hashtextextended(${`device ${appId} ${externalId}`}, 0)),
      pg_advisory_xact_lock(hashtextextended(${`token ${appId} ${provider} ${deviceToken ?? externalId}`}, 0)), now()
  `.execute(trx);
  const found = await sql<{ id: number }>`
    select id from devices where app_id = ${appId} and external_id = ${externalId}
    union all
    select owner.id from (values (${appId}::bigint, ${provider}::text, ${deviceToken}::text)) as said (app_id, provider, device_token)
    join devices owner on ${sql.raw(ownsTokenOf('said'))}
  `.execute(trx);
  const known = await lockDevices(
    trx,
    found.rows.map(({ id }) => id),
  );
  const stored = await storeRegistrations(trx, appId, [registration], known, { isOwn: true, now: rows[0]!.now });
  return { device: toDevice(stored[0]!), isNew: !known.some((device) => device.externalId === externalId) };
}
