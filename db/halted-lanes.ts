import { type Kysely, sql } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** A lane that stopped itself: what is in it waits. */
export interface HaltedLane {
  /** Its name. */
  app: string;
  provider: ProviderName;
  number: number;
  reason: string;
  /** A sentence; no secret. */
  detail: string;
  since: Date;
}

export async function listHaltedLanesOfAllApps(db: Kysely<Database>): Promise<HaltedLane[]> {
  const { rows } = await sql<HaltedLane>`
    select a.name as app, provider, number, halt_reason as reason, halt_detail as detail, halted_at as since
    from lanes join apps a on a.id = app_id where halt_reason is not null order by provider, number, app_id
  `.execute(db);
  return rows;
}

/**
 * The halted lanes of the app send again at once, and halt again if the fault is still there. A repeat changes nothing.
 * @returns how many
 */
export async function resumeLanes(db: Kysely<Database>, appId: number): Promise<number> {
  const { rows } = await sql`
    with resumed as (
      update lanes set halt_reason = null, halt_detail = null, halted_at = null, changes = changes + 1
      where app_id = ${appId} and halt_reason is not null returning id
    )
    select pg_notify('carillon_lanes', id::text) from resumed
  `.execute(db);
  return rows.length;
}
