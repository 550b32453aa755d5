import type { Kysely, Transaction } from 'kysely';
import type { Database } from './schema.ts';

/**
 * SQLSTATE of transactions that PostgreSQL ended although nothing is wrong with them: serialization_failure,
 * deadlock_detected, and unique_violation where two of them inserted the same key at once. Run again, they succeed or fail
 * for a reason of their own.
 */
const retryable = new Set(['40001', '40P01', '23505']);
const maxAttempts = 5;

/** `work` runs in a transaction, again from the start (five times at most) where it lost against another. */
export async function inTransaction<T>(
  db: Kysely<Database>,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.transaction().execute(work);
    } catch (error) {
      if (attempt >= maxAttempts || !isLostRace(error)) throw error;
    }
  }
}

/** Another transaction was faster: run again, it may pass. */
export function isLostRace(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' && retryable.has(code);
}
