import { type Kysely, sql } from 'kysely';
import { outcomes } from '../domain/outcome.ts';
import type { Database } from './schema.ts';

/**
 * The audit: every batch whose frozen audience, running counts, bitmap and groups disagree, and every group outside its batch. Empty
 * when the books are right; a finished notification must also have no batch open.
 */
export async function auditBooks(
  db: Kysely<Database>,
  notificationId: string,
): Promise<{ seq: number; size: number; counted: number; recorded: number; isFinished: boolean }[]> {
  const ofGroups = sql.join(
    outcomes.map((outcome) => sql`sum(devices) filter (where outcome = ${sql.lit(outcome)}) as ${sql.ref(outcome)}`),
  );
  const counts = (table: string) =>
    sql.join(outcomes.map((outcome) => sql`coalesce(${sql.ref(`${table}.${outcome}`)}, 0)`));
  const counted = sql.join(
    outcomes.map((outcome) => sql.ref(`b.${outcome}`)),
    sql` + `,
  );
  // The union of the groups' positions is the batch's bitmap; with as many positions in sum, no two groups have one in common.
  const { rows } = await sql<{ seq: number; size: number; counted: number; recorded: number; finished: boolean }>`
    with b as (
      select *, repeat('0', size)::bit varying as nobody from batches where notification_id = ${notificationId}
    ),
    g as (
      select batch_seq, sum(devices) as recorded,
        bit_or(overlay(b.nobody placing positions from first_position + 1)) as positions, ${ofGroups}
      from (
        select *, bit_count(positions) as devices from delivery_groups where notification_id = ${notificationId}
      ) as every_group
      left join b on b.seq = batch_seq and first_position + length(positions) <= b.size
      group by batch_seq
    )
    select coalesce(b.seq, g.batch_seq) as seq, coalesce(b.size, 0) as size, coalesce(g.recorded, 0)::bigint as recorded,
      coalesce(${counted}, 0) as counted, b.finished_at is not null as finished
    from b full join g on g.batch_seq = b.seq
    where b.seq is null
      or (${counts('g')}) is distinct from (${counts('b')})
      or (b.finished_at is not null) is distinct from (b.size = coalesce(g.recorded, 0))
      or coalesce(g.positions, b.nobody) is distinct from b.recorded
      or coalesce(g.recorded, 0) is distinct from bit_count(b.recorded)
    order by 1
  `.execute(db);
  return rows.map(({ finished, ...row }) => ({ ...row, isFinished: finished }));
}
