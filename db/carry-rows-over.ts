import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** Of ten thousand devices or so: a step is a transaction of a second or two. */
const batchesAtOnce = 10;

/**
 * Carries outcomes that a release before groups stored as rows over into groups, step by step, while sends run; see
 * `migrations/0009-delivery-groups.ts`. Interrupted, it goes on where it stopped; when all is carried, a repeat changes nothing.
 * @throws when counts and rows of a batch disagree; its step is rolled back
 */
export async function carryRowsOver(db: Kysely<Database>, onStep: (batches: number) => void): Promise<void> {
  const { rows } = await sql<{ is_left: boolean }>`select to_regclass('delivery_rows') is not null as is_left`.execute(
    db,
  );
  if (!rows[0]!.is_left) return;
  for (let batches = 0; ; ) {
    const { rows } = await sql<{ carried: number }>`select carry_rows_over(${batchesAtOnce}) as carried`.execute(db);
    const { carried } = rows[0]!;
    if (carried === 0) break;
    batches += carried;
    onStep(batches);
  }
  await sql`select forget_rows()`.execute(db);
  // `forget_rows` makes it anew; since `0011` nothing calls it.
  await sql`drop function record_group()`.execute(db);
}
