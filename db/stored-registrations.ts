import { type RawBuilder, type Selectable, sql, type Transaction } from 'kysely';
import {
  applyRegistrations,
  type DeviceRegistration,
  isLive,
  type Registered,
  type RegistrationResult,
  tokenKey,
  tokenMoved,
} from '../domain/registration.ts';
import type { Database, DeviceRow } from './schema.ts';

/** Registrations that need a look at what is stored: of devices that are known, and of tokens that move. */

export interface KnownDevice extends Registered {
  id: number;
  importId: number | null;
}

/**
 * Locks the rows that registrations will change, their own and their tokens' present owners, in order of id as every other
 * writer of many devices does. Found before and locked by id here: a row that had to be waited for is then seen as it is now.
 */
export async function lockDevices(trx: Transaction<Database>, ids: number[]): Promise<KnownDevice[]> {
  if (ids.length === 0) return [];
  const { rows } = await sql<KnownDevice>`
    select id, external_id as "externalId", provider, platform, device_token as "deviceToken",
      apns_environment as "apnsEnvironment", registered_at as "registeredAt", retired_at as "retiredAt",
      retired_reason as "retiredReason", import_id as "importId"
    from devices where id = any(${ids}::bigint[])
    order by id
    for update
  `.execute(trx);
  return rows;
}

/** See `applyRegistrations`. Returns the rows, unless they are an import's: those are many, and none is shown. */
export async function storeRegistrations(
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
