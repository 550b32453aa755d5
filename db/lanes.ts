import { type Kysely, sql, type Transaction } from 'kysely';
import { workerActor } from '../domain/actor.ts';
import type { ProviderName } from '../domain/device.ts';
import { auditEntry } from './audit-entries.ts';
import type { StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/** A lane: the messages of an app to some of the devices of one provider, in the order in which they were accepted. */
export interface Lane {
  id: number;
  appId: number;
  provider: ProviderName;
  /** From 0. */
  number: number;
  halt: { reason: string; detail: string; since: Date } | null;
  /** Some without an outcome, or all that it ever had ended a moment ago. */
  hasEntries: boolean;
  /** Milliseconds since a worker last showed that it sends; Infinity: none ever did. */
  msUnseen: number;
}

/** The right to write a lane's outcomes, until another worker claims it. */
export interface LaneClaim {
  laneId: number;
  fence: number;
  /** Entries below it may have been handed to the provider by an earlier claim. */
  horizon: number;
  /** Entries below it have their outcome. */
  settled: number;
}

/** At least so many lanes for each app that is not being deleted; a power of two. They are never made fewer. */
export async function openLanesOfAllApps(db: Kysely<Database>, provider: ProviderName, lanes: number): Promise<void> {
  await sql`select open_lanes(id, ${provider}, ${lanes}) from apps where deletion is null order by id`.execute(db);
}

export async function listLanesOfAllApps(db: Kysely<Database>): Promise<Lane[]> {
  const { rows } = await laneRows(db, sql`true`);
  return rows.map(toLane);
}

/** Undefined: its app is gone. */
export async function findLaneOfAnyApp(db: Kysely<Database>, id: number): Promise<Lane | undefined> {
  const { rows } = await laneRows(db, sql`id = ${id}`);
  return rows[0] && toLane(rows[0]);
}

interface LaneRow {
  id: number;
  app_id: number;
  provider: ProviderName;
  number: number;
  halt_reason: string | null;
  halt_detail: string | null;
  halted_at: Date | null;
  has_entries: boolean;
  ms_unseen: number;
}

function laneRows(db: Kysely<Database>, which: ReturnType<typeof sql>) {
  return sql<LaneRow>`
    select id, app_id, provider, number, halt_reason, halt_detail, halted_at,
      settled < (select next_position from lane_ends where lane_id = id) as has_entries,
      case when isfinite(seen_at) then extract(epoch from clock_timestamp() - seen_at) * 1000 else 'Infinity' end::double precision
        as ms_unseen
    from lanes where ${which} order by id
  `.execute(db);
}

function toLane({
  id,
  app_id,
  provider,
  number,
  halt_reason,
  halt_detail,
  halted_at,
  has_entries,
  ms_unseen,
}: LaneRow): Lane {
  const halt = halt_reason === null ? null : { reason: halt_reason, detail: halt_detail!, since: halted_at! };
  return { id, appId: app_id, provider, number, halt, hasEntries: has_entries, msUnseen: ms_unseen };
}

/**
 * Makes every earlier claim a zombie, and notes what it left in doubt. Undefined: the lane does not open yet; for a caller that had it,
 * a later claim owns it.
 * @param own the fence of the caller's claim before this one
 */
export async function claimLane(db: Kysely<Database>, laneId: number, own?: number): Promise<LaneClaim | undefined> {
  const { rows } = await sql<Omit<LaneClaim, 'laneId'>>`
    select fence, horizon, settled from claim_lane(${laneId}, ${own ?? null})
  `.execute(db);
  return rows[0] && { laneId, ...rows[0] };
}

/** A lane that has nothing to send tells that a worker has it; without effect when a later claim owns it. */
export async function noteLaneSeen(client: StatementClient, { laneId, fence }: LaneClaim): Promise<void> {
  await client.query({
    name: 'note_lane_seen',
    text: 'update lanes set seen_at = clock_timestamp() where id = $1 and fence = $2',
    values: [laneId, fence],
  });
}

/**
 * A lane that is empty up to `settled` is left: nobody has it from now on. False: something was accepted meanwhile, or a later claim owns
 * it. The end of the lane is locked, as by those who append: what is accepted later finds the lane left, and wakes it.
 */
export async function leaveLane(
  db: Kysely<Database>,
  { laneId, fence }: Pick<LaneClaim, 'laneId' | 'fence'>,
  settled: number,
): Promise<boolean> {
  const { rows } = await sql`
    with ending as materialized (select next_position from lane_ends where lane_id = ${laneId} for update)
    update lanes set seen_at = '-infinity', settled = greatest(settled, ${settled}::bigint) from ending
    where id = ${laneId} and fence = ${fence} and next_position = ${settled} returning id
  `.execute(db);
  return rows.length > 0;
}

/** The lane sends nothing until the fault is mended; what is in it waits. */
export async function haltLane(
  db: Kysely<Database>,
  { laneId, fence }: LaneClaim,
  { reason, detail }: { reason: string; detail: string },
): Promise<void> {
  const entry = auditEntry(workerActor, {
    ...{ appId: sql.ref('app_id'), action: 'lane.halt' },
    ...{ target: { kind: 'lane', id: sql`provider || '-' || number` }, changes: { reason } },
  });
  await sql`
    with lane as materialized (select id, halted_at is null as is_new from lanes where id = ${laneId} for no key update),
    halted as (
      update lanes set halt_reason = ${reason}, halt_detail = ${detail}, halted_at = coalesce(halted_at, clock_timestamp()),
        seen_at = clock_timestamp()
      from lane where lanes.id = lane.id and fence = ${fence} returning app_id, provider, number, is_new
    )
    select ${entry} from halted where is_new
  `.execute(db);
}

/** Ends what is too old in a lane that sends nothing. Part of a transaction. @returns entries that were ended */
export async function expireEntries(trx: Transaction<Database>, { laneId, fence }: LaneClaim): Promise<number> {
  const { rows } = await sql<{ expired: number | null }>`
    select expire_entries(${laneId}, ${fence}) as expired
  `.execute(trx);
  return rows[0]!.expired ?? 0;
}
