import { type Kysely, sql, type Transaction } from 'kysely';
import { type DeviceRegistration, keysOf } from '../domain/registration.ts';
import { ownsTokenOf } from './live-token.ts';
import { registrationColumns } from './registration-columns.ts';
import type { Database } from './schema.ts';
import { lockDevices, storeRegistrations } from './stored-registrations.ts';

export interface ImportOptions {
  /** From `beginImport`. */
  importId: number;
  /** Rows that do not say when they were registered count as registrations by the app at this moment. */
  isOwn: boolean;
}

/** The id of one run of an import: what it has stored already is known by it. */
export async function beginImport(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ id: number }>`select nextval('device_import_ids')::integer as id`.execute(db);
  return rows[0]!.id;
}

/**
 * Stores rows of an import in their order, see `applyRegistrations`, in a fixed number of statements whatever their number.
 * Imports of one app wait for each other here. Returns how many rows were superseded by a later one of the same import.
 * @throws an error that `inTransaction` runs again, when another transaction was first with a new device or a token
 */
export async function importDevices(
  trx: Transaction<Database>,
  appId: number,
  registrations: DeviceRegistration[],
  { importId, isOwn }: ImportOptions,
): Promise<{ superseded: number }> {
  const { rows } = await sql<{ now: Date }>`
    select pg_advisory_xact_lock(${importLock}, ${appId}::integer), now()
  `.execute(trx);
  const { left, storedIds } = await insertNewDevices(trx, appId, registrations, importId);
  const known = await lockDevices(trx, storedIds);
  await storeRegistrations(trx, appId, left, known, { isOwn, now: rows[0]!.now, importId });
  const ids = new Set(left.map(({ externalId }) => externalId));
  const again = known.filter((device) => device.importId === importId && ids.has(device.externalId)).length;
  return { superseded: left.length - ids.size + again };
}

/** Any number that nothing else in this database uses as the first of a pair. */
const importLock = 7_203_001;

/**
 * Nearly all rows of a first import are new devices with tokens that nobody has. What is alone in this list with its id and its
 * token ends the same whatever the other rows do, so it is stored by the statement that looks it up. Returns the registrations
 * that are left, and the ids of the devices and token owners that they meet.
 */
async function insertNewDevices(
  trx: Transaction<Database>,
  appId: number,
  registrations: DeviceRegistration[],
  importId: number,
): Promise<{ left: DeviceRegistration[]; storedIds: number[] }> {
  const [externalIds, userIds, providers, platforms, deviceTokens, apnsEnvironments, properties, locales, timeZones] =
    registrationColumns(registrations);
  const saidAt = registrations.map(({ registeredAt }) => registeredAt ?? null);
  const isRepeated = findRepeats(registrations);
  // The lateral probes keep the plan on the two unique indexes whatever the table's statistics say.
  const { rows } = await sql<{ n: number; own: number | null; owner: number | null }>`
    with said as materialized (
      select said.*, own.id as own, owner.id as owner
      from (
        select ${appId}::bigint as app_id, row.* from unnest(${externalIds}::text[], ${userIds}::text[],
          ${providers}::text[], ${platforms}::text[], ${deviceTokens}::text[], ${apnsEnvironments}::text[],
          ${properties}::jsonb[], ${locales}::text[], ${timeZones}::text[], ${saidAt}::timestamptz[],
          ${registrations.map(isRepeated)}::boolean[]) with ordinality
          as row (external_id, user_id, provider, platform, device_token, apns_environment, properties, locale, time_zone,
            registered_at, is_repeated, n)
      ) as said
      left join lateral (
        select id from devices where app_id = said.app_id and external_id = said.external_id limit 1
      ) own on true
      left join lateral (
        select id from devices owner where ${sql.raw(ownsTokenOf('said'))} limit 1
      ) owner on true
    ), added as (
      insert into devices (app_id, external_id, user_id, provider, platform, device_token, apns_environment, properties,
        locale, time_zone, registered_at, import_id)
      select app_id, external_id, user_id, provider, platform, device_token, apns_environment,
        coalesce(properties, '{}'), locale, time_zone, least(registered_at, now()), ${importId}::integer
      from said where own is null and owner is null and not is_repeated
    )
    select n, own, owner from said where own is not null or owner is not null or is_repeated order by n
  `.execute(trx);
  const storedIds = new Set(rows.flatMap(({ own, owner }) => [own, owner]).filter((id) => id !== null));
  return { left: rows.map(({ n }) => registrations[n - 1]!), storedIds: [...storedIds] };
}

/** Tells whether another registration of the list has the same external id or the same token. */
function findRepeats(registrations: DeviceRegistration[]): (registration: DeviceRegistration) => boolean {
  const seen = new Set<string>();
  const repeated = new Set<string>();
  for (const registration of registrations) {
    for (const key of keysOf(registration)) {
      if (seen.has(key)) repeated.add(key);
      seen.add(key);
    }
  }
  return (registration) => repeated.size > 0 && keysOf(registration).some((key) => repeated.has(key));
}
