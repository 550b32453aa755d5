import { type Kysely, sql } from 'kysely';
import { outcomes } from '../domain/outcome.ts';
import type { Database } from './schema.ts';

/**
 * The audit: every batch whose frozen audience, running counts and rows disagree, by outcome and by the sum of device ids, and
 * every row outside its batch. Empty when the books are right; a finished notification must also have no batch open.
 */
export async function auditBooks(
  db: Kysely<Database>,
  notificationId: string,
): Promise<{ seq: number; size: number; counted: number; rows: number; isFinished: boolean }[]> {
  const ofRows = sql.join(
    outcomes.map((outcome) => sql`count(*) filter (where outcome = ${sql.lit(outcome)}) as ${sql.ref(outcome)}`),
  );
  const counts = (table: string) =>
    sql.join(outcomes.map((outcome) => sql`coalesce(${sql.ref(`${table}.${outcome}`)}, 0)`));
  const counted = sql.join(
    outcomes.map((outcome) => sql.ref(`b.${outcome}`)),
    sql` + `,
  );
  const { rows } = await sql<{ seq: number; size: number; counted: number; rows: number; finished: boolean }>`
    with b as (
      select *, (select sum(id) from unnest(device_ids) as id) as ids from batches where notification_id = ${notificationId}
    ),
    r as (
      select batch_seq, count(*) as rows, sum(device_id) as ids, ${ofRows}
      from deliveries where notification_id = ${notificationId} group by batch_seq
    )
    select coalesce(b.seq, r.batch_seq) as seq, coalesce(b.size, 0) as size, coalesce(r.rows, 0) as rows,
      coalesce(${counted}, 0) as counted, b.finished_at is not null as finished
    from b full join r on r.batch_seq = b.seq
    where b.seq is null
      or (${counts('r')}) is distinct from (${counts('b')})
      or (b.finished_at is not null) is distinct from (b.size = coalesce(r.rows, 0))
      or (b.finished_at is not null and r.ids is distinct from b.ids)
    order by 1
  `.execute(db);
  return rows.map(({ finished, ...row }) => ({ ...row, isFinished: finished }));
}
