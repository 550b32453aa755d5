import { type Kysely, sql } from 'kysely';
import type { TokenEvidence } from '../domain/token-evidence.ts';
import { ownsTokenOf } from './live-token.ts';
import type { Database } from './schema.ts';

/** Answers of one configuration since they were last weighed. */
interface NewEvidence {
  accepted: number;
  /** Devices whose token was called bad. */
  suspectIds: number[];
}

/**
 * The evidence of the last day, `added` included, which is kept for all that come after; see `migrations/0006-token-evidence.ts`.
 * A repeat counts its accepted devices twice and its suspects once.
 */
export async function keepEvidence(
  db: Kysely<Database>,
  appId: number,
  configuration: string,
  { accepted, suspectIds }: NewEvidence,
): Promise<TokenEvidence> {
  const { rows } = await sql<TokenEvidence>`
    select accepted::float8, suspicious::float8
    from weigh_tokens(${appId}, ${configuration}, ${accepted}, ${suspectIds}::bigint[])
  `.execute(db);
  return rows[0]!;
}

/**
 * Takes back what was believed too early: once so many tokens are called bad that the configuration must be wrong, devices that were
 * retired by it on suspicion during the last day are alive again, unless another device has the token by now.
 * @returns how many
 */
export async function reviveSuspects(db: Kysely<Database>, appId: number, configuration: string): Promise<number> {
  const { numAffectedRows } = await sql`
    with suspects as (
      select d.id from token_suspects s join devices d on d.id = s.device_id
      where s.app_id = ${appId} and s.configuration = ${configuration} and d.app_id = ${appId}
        and s.suspected_at > clock_timestamp() - interval '24 hours' and d.retired_at >= s.suspected_at and d.retired_reason <> 'token_moved'
        and not exists (
          select from devices owner where ${sql.raw(ownsTokenOf('d'))}
        )
      order by d.id for update of d
    )
    update devices set retired_at = null, retired_reason = null, updated_at = now()
    from suspects where devices.id = suspects.id
  `.execute(db);
  return Number(numAffectedRows ?? 0);
}

/** Forgets what is too old to be looked at again: suspects after two days, departed tokens after five weeks (a message lives for four). */
export async function forgetOldEvidenceOfAllApps(db: Kysely<Database>): Promise<void> {
  await db.deleteFrom('token_suspects').where('suspected_at', '<', sql<Date>`now() - interval '2 days'`).execute();
  await db.deleteFrom('token_departures').where('departed_at', '<', sql<Date>`now() - interval '35 days'`).execute();
}
