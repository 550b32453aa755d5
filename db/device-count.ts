import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** Devices of the app, counted up to `limit`. */
export async function countDevices(db: Kysely<Database>, appId: number, limit: number): Promise<number> {
  const { rows } = await sql<{ devices: number }>`
    select count(*) as devices from (select from devices where app_id = ${appId} limit ${limit}) as counted
  `.execute(db);
  return rows[0]!.devices;
}

/** Those of the ids that the app has no device of. */
export async function findUnknownIds(db: Kysely<Database>, appId: number, externalIds: string[]): Promise<Set<string>> {
  const { rows } = await sql<{ id: string }>`
    select said.id from unnest(${externalIds}::text[]) as said (id)
    where not exists (select from devices where app_id = ${appId} and external_id = said.id)
  `.execute(db);
  return new Set(rows.map(({ id }) => id));
}
