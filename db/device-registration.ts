import { type Kysely, type RawBuilder, type Selectable, sql, type Transaction } from 'kysely';
import {
  applyRegistrations,
  type DeviceRegistration,
  isLive,
  type Registered,
  type RegistrationResult,
  tokenKey,
  tokenMoved,
} from '../domain/registration.ts';
import { type Device, toDevice } from './devices.ts';
import type { Database, DeviceRow } from './schema.ts';

/**
 * Registers one device as its app does: its token becomes its own, the device that had it before is retired as `token_moved`.
 * Registrations of the same token or device wait for each other, and for an import only where it is storing that very
 * device or token.
 * @throws an error that `inTransaction` runs again, when an import was first with a new device or the token
 */
export async function registerDevice(
  trx: Transaction<Database>,
  appId: number,
  registration: DeviceRegistration,
): Promise<{ device: Device; isNew: boolean }> {
  const { externalId, provider, deviceToken } = registration;
  const { rows } = await sql<{ now: Date }>`
    select pg_advisory_xact_lock(hashtextextended(${`device ${appId} ${externalId}`}, 0)),
      pg_advisory_xact_lock(hashtextextended(${`token ${appId} ${provider} ${deviceToken ?? externalId}`}, 0)), now()
  `.execute(trx);
  const known = await lockDevices(trx, appId, [registration]);
  const stored = await store(trx, appId, [registration], known, { isOwn: true, now: rows[0]!.now });
  return { device: toDevice(stored[0]!), isNew: !known.some((device) => device.externalId === externalId) };
}

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
  const known = await lockDevices(trx, appId, registrations);
  await store(trx, appId, registrations, known, { isOwn, now: rows[0]!.now, importId });
  const ids = new Set(registrations.map(({ externalId }) => externalId));
  const again = known.filter((device) => device.importId === importId && ids.has(device.externalId)).length;
  return { superseded: registrations.length - ids.size + again };
}

/** Any number that nothing else in this database uses as the first of a pair. */
const importLock = 7_203_001;

interface KnownDevice extends Registered {
  id: number;
  importId: number | null;
}

/**
 * Locks the rows that a registration will change, its own and the token's present owner, in order of id as every other writer
 * of many devices does. Found first and locked by id after that: a row that had to be waited for is then seen as it is now. The
 * lateral probes keep the plan on the two unique indexes whatever the table's statistics say.
 */
async function lockDevices(
  trx: Transaction<Database>,
  appId: number,
  registrations: DeviceRegistration[],
): Promise<KnownDevice[]> {
  const found = await sql<{ id: number }>`
    select own.id from unnest(${registrations.map((r) => r.externalId)}::text[]) as r (external_id)
    cross join lateral (
      select id from devices where app_id = ${appId} and external_id = r.external_id limit 1
    ) own
    union all
    select owner.id from unnest(
      ${registrations.map((r) => r.provider)}::text[], ${registrations.map((r) => r.deviceToken)}::text[]
    ) as r (provider, device_token)
    cross join lateral (
      select id from devices
      where app_id = ${appId} and provider = r.provider and device_token = r.device_token
        and retired_at is null and device_token is not null
      limit 1
    ) owner
  `.execute(trx);
  if (found.rows.length === 0) return [];
  const locked = await sql<KnownDevice>`
    select id, external_id as "externalId", provider, platform, device_token as "deviceToken",
      apns_environment as "apnsEnvironment", registered_at as "registeredAt", retired_at as "retiredAt",
      retired_reason as "retiredReason", import_id as "importId"
    from devices where id = any(${found.rows.map(({ id }) => id)}::bigint[])
    order by id
    for update
  `.execute(trx);
  return locked.rows;
}

/** Returns the rows, unless they are an import's: those are many, and none is shown. */
async function store(
  trx: Transaction<Database>,
  appId: number,
  registrations: DeviceRegistration[],
  known: KnownDevice[],
  options: { isOwn: boolean; now: Date; importId?: number },
): Promise<Selectable<DeviceRow>[]> {
  const { devices, formerOwners } = applyRegistrations(registrations, known, options);
  const ids = new Map(known.map(({ externalId, id }) => [externalId, id]));
  await freeTokens(trx, known, devices, formerOwners, options.now);
  const isKnown = ({ externalId }: RegistrationResult) => ids.has(externalId);
  const updated = devices.filter(isKnown);
  const added = devices.filter((device) => !isKnown(device));
  const stored: Selectable<DeviceRow>[] = [];
  const importId = options.importId ?? null;
  const returning = importId === null ? sql`returning devices.*` : sql``;
  if (updated.length > 0) {
    const { rows } = await sql<Selectable<DeviceRow>>`
      update devices set
        user_id = r.u, provider = r.p, platform = r.f, device_token = r.t, apns_environment = r.a,
        properties = coalesce(r.j, devices.properties), locale = r.l, time_zone = r.z,
        registered_at = case when r.n then now() else coalesce(r.d, devices.registered_at) end,
        retired_at = r.x, retired_reason = r.y, updated_at = now(),
        import_id = coalesce(${importId}::integer, devices.import_id)
      from ${recordset(updated, ids)}
      where devices.id = r.i
      ${returning}
    `.execute(trx);
    stored.push(...rows);
  }
  if (added.length > 0) {
    const { rows, numAffectedRows } = await sql<Selectable<DeviceRow>>`
      insert into devices (app_id, external_id, user_id, provider, platform, device_token, apns_environment, properties,
        locale, time_zone, registered_at, retired_at, retired_reason, import_id)
      select ${appId}, r.e, r.u, r.p, r.f, r.t, r.a, coalesce(r.j, '{}'), r.l, r.z, coalesce(r.d, now()), r.x, r.y,
        ${importId}::integer
      from ${recordset(added, ids)}
      on conflict on constraint devices_app_external_id_key do nothing
      ${returning}
    `.execute(trx);
    if (Number(numAffectedRows) < added.length) throw new LostRaceError();
    stored.push(...rows);
  }
  return stored;
}

/** Another transaction stored one of these devices, or took a token, after this one had looked. Run again, it sees the other. */
class LostRaceError extends Error {
  /** As PostgreSQL would say it. */
  readonly code = '40001';

  constructor() {
    super('Another request registered the device or its token at the same time.');
  }
}

/** Before they are given to others, so that the index of live tokens never holds one twice, also where devices swap theirs. */
async function freeTokens(
  trx: Transaction<Database>,
  known: KnownDevice[],
  devices: RegistrationResult[],
  formerOwners: Registered[],
  now: Date,
): Promise<void> {
  if (!known.some(isLive)) return;
  const lostAt = new Map(formerOwners.map(({ externalId, retiredAt }) => [externalId, retiredAt]));
  const owners = new Map(devices.filter(isLive).map((device) => [tokenKey(device), device.externalId]));
  const freed = known.filter((device) => {
    if (!isLive(device)) return false;
    return lostAt.has(device.externalId) || (owners.get(tokenKey(device)) ?? device.externalId) !== device.externalId;
  });
  if (freed.length === 0) return;
  await sql`
    update devices set retired_at = lost.at, retired_reason = ${tokenMoved}, updated_at = now()
    from unnest(
      ${freed.map(({ id }) => id)}::bigint[], ${freed.map(({ externalId }) => lostAt.get(externalId) ?? now)}::timestamptz[]
    ) as lost (id, at)
    where devices.id = lost.id
  `.execute(trx);
}

/** What is undefined is left out of the text, which PostgreSQL reads as null: most rows have none of those. */
function recordset(devices: RegistrationResult[], ids: Map<string, number>): RawBuilder<unknown> {
  const rows = devices.map((device) => ({
    i: ids.get(device.externalId),
    e: device.externalId,
    u: device.userId,
    p: device.provider,
    f: device.platform,
    t: device.deviceToken,
    a: device.apnsEnvironment,
    j: device.properties,
    l: device.locale,
    z: device.timeZone,
    n: device.registration === 'now' || undefined,
    d: device.registration === 'said' ? device.registeredAt : undefined,
    x: device.retiredAt ?? undefined,
    y: device.retiredReason ?? undefined,
  }));
  return sql`json_to_recordset(${JSON.stringify(rows)}::json) as r (i bigint, e text, u text, p text, f text, t text, a text,
    j jsonb, l text, z text, n boolean, d timestamptz, x timestamptz, y text)`;
}
