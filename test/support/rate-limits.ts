import type { Kysely } from 'kysely';
import type { Database } from '../../db/schema.ts';

/** As an operator sets it by hand: devices per second over all workers. */
export async function setRateLimit(db: Kysely<Database>, scope: string, ratePerSecond: number): Promise<void> {
  await db
    .insertInto('rate_limits')
    .values({ scope, rate_per_second: ratePerSecond })
    .onConflict((oc) => oc.column('scope').doUpdateSet({ rate_per_second: ratePerSecond }))
    .execute();
}
