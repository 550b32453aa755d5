import { type Kysely, type Selectable, sql } from 'kysely';
import type { App, AppSettings } from '../domain/app.ts';
import { byProvider, type ProviderName } from '../domain/device.ts';
import { providerScope, setProviderRate } from './rate-limits.ts';
import type { Database } from './schema.ts';

/** App `default` exists from the first migration on. */
export async function findAppByName(db: Kysely<Database>, name: string): Promise<App | undefined> {
  const row = await selectApps(db).where('name', '=', name).executeTakeFirst();
  return row && toApp(row);
}

export async function findAppOfAnyApp(db: Kysely<Database>, appId: number): Promise<App | undefined> {
  const row = await selectApps(db).where('id', '=', appId).executeTakeFirst();
  return row && toApp(row);
}

/** Oldest first; `cursor` is the last id of the page before. */
export async function listAllApps(
  db: Kysely<Database>,
  page: { cursor?: number | undefined; limit: number },
): Promise<App[]> {
  const query = selectApps(db)
    .where('id', '>', page.cursor ?? 0)
    .orderBy('id')
    .limit(page.limit);
  return (await query.execute()).map(toApp);
}

/** By app id: it has changed since whoever saw it at another version. Apps that are gone are not among them. */
export async function listAppVersionsOfAllApps(db: Kysely<Database>, appIds: number[]): Promise<Map<number, number>> {
  const rows = await db
    .selectFrom('apps')
    .select(['id', 'version'])
    .where('id', '=', sql<number>`any(${appIds}::bigint[])`)
    .execute();
  return new Map(rows.map(({ id, version }) => [id, version]));
}

/** Undefined: the name is taken. */
export async function insertApp(
  db: Kysely<Database>,
  name: string,
  settings: Partial<AppSettings>,
): Promise<App | undefined> {
  const inserted = await db
    .insertInto('apps')
    .values({ name, ...toColumns(settings) })
    .onConflict((oc) => oc.constraint('apps_name_key').doNothing())
    .returning('id')
    .executeTakeFirst();
  if (!inserted) return undefined;
  await setRates(db, inserted.id, settings.rates);
  return findAppOfAnyApp(db, inserted.id);
}

/** Changes what is named; an undefined value clears its field. */
export async function updateApp(db: Kysely<Database>, appId: number, change: Partial<AppSettings>): Promise<App> {
  await db
    .updateTable('apps')
    .set({ ...toColumns(change), updated_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', appId)
    .execute();
  await setRates(db, appId, change.rates);
  return toApp(await selectApps(db).where('id', '=', appId).executeTakeFirstOrThrow());
}

/** Until the end of the transaction nobody else changes the app or begins to delete it. */
export async function lockAppByName(trx: Kysely<Database>, name: string): Promise<App | undefined> {
  await trx.selectFrom('apps').select('id').where('name', '=', name).forNoKeyUpdate().execute();
  return findAppByName(trx, name);
}

async function setRates(
  db: Kysely<Database>,
  appId: number,
  rates: Partial<Record<ProviderName, number | null>> = {},
): Promise<void> {
  for (const [provider, rate] of Object.entries(rates)) {
    await setProviderRate(db, providerScope(appId, provider as ProviderName), rate);
  }
}

type AppRow = Selectable<Database['apps']> & Record<ProviderName, number | null>;

function selectApps(db: Kysely<Database>) {
  const rateOf = (provider: ProviderName) =>
    sql<
      number | null
    >`(select rate_per_second from rate_limits where scope = 'app:' || apps.id || ':' || ${provider}::text)`;
  return db
    .selectFrom('apps')
    .selectAll()
    .select([rateOf('apns').as('apns'), rateOf('fcm').as('fcm')]);
}

function toApp(row: AppRow): App {
  return {
    id: row.id,
    name: row.name,
    apnsTopic: row.apns_topic ?? undefined,
    apnsTopics: row.apns_topics,
    apnsEnvironment: row.apns_environment,
    fcmProjectId: row.fcm_project_id ?? undefined,
    defaultTtlSeconds: row.default_ttl_seconds ?? undefined,
    defaultInDoubtPolicy: row.default_in_doubt_policy,
    maxDevices: row.max_devices ?? undefined,
    rates: byProvider((provider) => row[provider]),
    version: row.version,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    deletion: row.deletion ?? undefined,
  };
}

/** Of those that are named. */
function toColumns(settings: Partial<AppSettings>) {
  const has = (name: keyof AppSettings) => Object.hasOwn(settings, name);
  return {
    ...(has('apnsTopic') && { apns_topic: settings.apnsTopic ?? null }),
    ...(has('apnsTopics') && { apns_topics: settings.apnsTopics ?? [] }),
    ...(has('apnsEnvironment') && { apns_environment: settings.apnsEnvironment ?? 'production' }),
    ...(has('fcmProjectId') && { fcm_project_id: settings.fcmProjectId ?? null }),
    ...(has('defaultTtlSeconds') && { default_ttl_seconds: settings.defaultTtlSeconds ?? null }),
    ...(has('defaultInDoubtPolicy') && { default_in_doubt_policy: settings.defaultInDoubtPolicy ?? 'redeliver' }),
    ...(has('maxDevices') && { max_devices: settings.maxDevices ?? null }),
  };
}
