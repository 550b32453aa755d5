import type { Kysely } from 'kysely';
import { type Claim, claimBatch } from './batches.ts';
import { noteDoubts } from './deferrals.ts';
import type { Database } from './schema.ts';

/**
 * Claims a batch to send it on: with what an earlier claim left in doubt noted. Undefined: the batch is finished.
 *
 * The doubts belong to the fence of their own transaction: by a statement of its own, carried out only after its connection broke and it
 * was tried again, `noteDoubts` would count devices that the same claim has reserved since.
 */
export async function claimToSend(
  db: Kysely<Database>,
  notificationId: string,
  seq: number,
): Promise<Claim | undefined> {
  const claim = await claimBatch(db, notificationId, seq);
  // Nothing was reserved before: the ordinary case, in one statement.
  if (claim === undefined || claim.horizon === 0) return claim;
  return db.transaction().execute(async (trx) => {
    const again = await claimBatch(trx, notificationId, seq);
    if (again !== undefined) await noteDoubts(trx, again);
    return again;
  });
}
