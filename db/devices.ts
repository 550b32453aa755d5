import { type Kysely, type RawBuilder, type Selectable, sql, type Transaction } from 'kysely';
import type { Audience, Condition } from '../domain/audience.ts';
import { type ApnsEnvironment, type Platform, type ProviderName, platforms, providerNames } from '../domain/device.ts';
import type { JsonValue } from '../domain/message.ts';
import { audienceFilter, conditionFilter } from './audience.ts';
import type { Database, DeviceRow } from './schema.ts';

/** What an app says of itself when it registers. `deviceToken` is normalised already. */
export interface DeviceRegistration {
  externalId: string;
  userId: string | null;
  provider: ProviderName;
  platform: Platform;
  deviceToken: string | null;
  apnsEnvironment: ApnsEnvironment | null;
  /** Undefined keeps what is stored. */
  properties: Record<string, JsonValue> | undefined;
  locale: string | null;
  timeZone: string | null;
}

export interface Device extends DeviceRegistration {
  id: number;
  appId: number;
  properties: Record<string, JsonValue>;
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

/**
 * Registers one device: its token becomes its own, whoever had it before is retired as `token_moved`. Registrations of the
 * same token or device wait for each other, so none of them fails; they share the app with each other, not with an import.
 */
export async function registerDevice(
  trx: Transaction<Database>,
  appId: number,
  registration: DeviceRegistration,
): Promise<{ device: Device; isNew: boolean }> {
  const { externalId, provider, deviceToken } = registration;
  await sql`
    select pg_advisory_xact_lock_shared(${registrationLock}, ${appId}::integer),
      pg_advisory_xact_lock(hashtextextended(${`device ${appId} ${externalId}`}, 0)),
      pg_advisory_xact_lock(hashtextextended(${`token ${appId} ${provider} ${deviceToken ?? externalId}`}, 0))
  `.execute(trx);
  const existing = await lockDevices(trx, appId, [registration]);
  await retireFormerOwners(trx, existing, [registration]);
  const upsert = upsertOf(appId, [registration], new Set());
  const { rows } = await sql<Selectable<DeviceRow>>`${upsert} returning *`.execute(trx);
  return { device: toDevice(rows[0]!), isNew: !existing.some((row) => row.externalId === externalId) };
}

/**
 * Registers many devices, each external id at most once, in a fixed number of statements whatever their number. Where two of
 * them bring the same token, the later one owns it and the earlier one is stored as its former owner. Imports of one app wait
 * for each other here.
 */
export async function registerDevices(
  trx: Transaction<Database>,
  appId: number,
  registrations: DeviceRegistration[],
): Promise<void> {
  await sql`select pg_advisory_xact_lock(${registrationLock}, ${appId}::integer)`.execute(trx);
  const owners = new Map<string, string>();
  for (const { provider, deviceToken, externalId } of registrations) {
    if (deviceToken !== null) owners.set(`${provider} ${deviceToken}`, externalId);
  }
  const former = new Set<string>();
  for (const { provider, deviceToken, externalId } of registrations) {
    if (deviceToken !== null && owners.get(`${provider} ${deviceToken}`) !== externalId) former.add(externalId);
  }
  const owning = registrations.filter((registration) => !former.has(registration.externalId));
  await retireFormerOwners(trx, await lockDevices(trx, appId, registrations), owning);
  for (const keepsProperties of [false, true]) {
    const group = registrations.filter(({ properties }) => (properties === undefined) === keepsProperties);
    if (group.length > 0) await upsertOf(appId, group, former).execute(trx);
  }
}

/** Any number that nothing else in this database uses as the first of a pair. */
const registrationLock = 7_203_001;

interface LockedDevice {
  id: number;
  externalId: string;
  /** Null when the row is not live. */
  liveToken: string | null;
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
): Promise<LockedDevice[]> {
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
  const locked = await sql<LockedDevice>`
    select id, external_id as "externalId",
      case when retired_at is null and device_token is not null then provider || ' ' || device_token end as "liveToken"
    from devices where id = any(${found.rows.map(({ id }) => id)}::bigint[])
    order by id
    for update
  `.execute(trx);
  return locked.rows;
}

async function retireFormerOwners(
  trx: Transaction<Database>,
  locked: LockedDevice[],
  owning: DeviceRegistration[],
): Promise<void> {
  const owners = new Map(owning.map((r) => [`${r.provider} ${r.deviceToken}`, r.externalId]));
  const formerIds = locked
    .filter(({ liveToken, externalId }) => liveToken !== null && (owners.get(liveToken) ?? externalId) !== externalId)
    .map(({ id }) => id);
  if (formerIds.length === 0) return;
  await sql`
    update devices set retired_at = now(), retired_reason = 'token_moved', updated_at = now()
    where id = any(${formerIds}::bigint[])
  `.execute(trx);
}

/** All with properties or all without: those without keep what is stored. */
function upsertOf(appId: number, registrations: DeviceRegistration[], former: Set<string>): RawBuilder<unknown> {
  const rows = JSON.stringify(
    registrations.map((r) => ({
      e: r.externalId,
      u: r.userId,
      p: r.provider,
      f: r.platform,
      t: r.deviceToken,
      a: r.apnsEnvironment,
      j: r.properties ?? {},
      l: r.locale,
      z: r.timeZone,
      m: former.has(r.externalId),
    })),
  );
  const keptProperties = registrations[0]?.properties === undefined;
  return sql`
    insert into devices (app_id, external_id, user_id, provider, platform, device_token, apns_environment, properties,
      locale, time_zone, retired_at, retired_reason)
    select ${appId}, r.e, r.u, r.p, r.f, r.t, r.a, r.j, r.l, r.z,
      case when r.m then now() end, case when r.m then 'token_moved' end
    from json_to_recordset(${rows}::json)
      as r (e text, u text, p text, f text, t text, a text, j jsonb, l text, z text, m boolean)
    on conflict on constraint devices_app_external_id_key do update set
      user_id = excluded.user_id, provider = excluded.provider, platform = excluded.platform,
      device_token = excluded.device_token, apns_environment = excluded.apns_environment,
      properties = ${keptProperties ? sql`devices.properties` : sql`excluded.properties`},
      locale = excluded.locale, time_zone = excluded.time_zone,
      retired_at = excluded.retired_at, retired_reason = excluded.retired_reason,
      registered_at = now(), updated_at = now()
  `;
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
  change: { set: Record<string, JsonValue>; remove: string[] },
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

export interface DeviceSearch {
  condition?: Condition | undefined;
  externalIds?: string[] | undefined;
  userIds?: string[] | undefined;
  /** True: devices that can be sent to; false: the others; undefined: all. */
  isLive?: boolean | undefined;
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
  if (search.externalIds) query = query.where(sql<boolean>`external_id = any(${search.externalIds}::text[])`);
  if (search.userIds) query = query.where(sql<boolean>`user_id = any(${search.userIds}::text[])`);
  if (search.condition) query = query.where(conditionFilter(search.condition));
  if (search.isLive !== undefined) {
    query = query.where(sql<boolean>`(retired_at is null and device_token is not null) = ${search.isLive}::boolean`);
  }
  return (await query.execute()).map(toDevice);
}

export interface AudienceSize {
  devices: number;
  byProvider: Record<ProviderName, number>;
  byPlatform: Record<Platform, number>;
}

/** How many live devices an audience has at this moment. */
export async function countAudience(db: Kysely<Database>, appId: number, audience: Audience): Promise<AudienceSize> {
  const rows = await db
    .selectFrom('devices')
    .select(['provider', 'platform'])
    .select((eb) => eb.fn.countAll<number>().as('devices'))
    .where(audienceFilter(appId, audience))
    .groupBy(['provider', 'platform'])
    .execute();
  const sum = (matching: typeof rows) => matching.reduce((total, row) => total + row.devices, 0);
  const counts = <K extends string>(keys: readonly K[], column: 'provider' | 'platform') =>
    Object.fromEntries(keys.map((key) => [key, sum(rows.filter((row) => row[column] === key))])) as Record<K, number>;
  return {
    devices: sum(rows),
    byProvider: counts(providerNames, 'provider'),
    byPlatform: counts(platforms, 'platform'),
  };
}

function toDevice(row: Selectable<DeviceRow>): Device {
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
