import type pg from 'pg';

/** What a worker does at the end: an outcome for each device of the message that has none, and its place in the counts. */
export async function endMessage(
  pool: pg.Pool,
  id: string,
  outcome = 'accepted',
  reason: string | null = null,
): Promise<void> {
  await pool.query(
    `with ended as (
      update message_entries set outcome = $2, reason = $3, http_status = 200, attempts = attempts + 1, finished_at = clock_timestamp()
      where message_id = $1 and outcome is null returning lane_id, message_id, outcome, reason, doubts
    )
    select count_ended(array_agg(lane_id), array_agg(message_id), array_agg(outcome), array_agg(reason), array_agg(doubts > 0))
    from ended having count(*) > 0`,
    [id, outcome, reason],
  );
}

/** What the counts say beside what the rows say; both the same where the books are right. */
export async function messageBooks(pool: pg.Pool) {
  const { rows } = await pool.query(`
    select 'counts' as source, sum(devices) filter (where outcome = 'entered')::integer as entered,
      sum(devices) filter (where outcome <> 'entered')::integer as ended
    from message_counts
    union all
    select 'rows', (select count(*) from message_entries) + skipped, (select count(outcome) from message_entries) + skipped
    from (select coalesce(sum(jsonb_array_length(recipients -> 'skipped')), 0)::integer as skipped from messages) s`);
  const [counts, stored] = rows.map(({ entered, ended }) => ({ entered: Number(entered), ended: Number(ended) }));
  return { counts, stored };
}
