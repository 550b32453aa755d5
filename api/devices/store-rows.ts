import type { Kysely } from 'kysely';
import { type ImportOptions, importDevices } from '../../db/device-import.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import { toApiError } from '../http/to-api-error.ts';
import type { ImportFailure, ImportRow } from './import-row.ts';

/** What became of the rows of one statement. */
export interface StoredRows {
  failures: ImportFailure[];
  /** Rows that a later one with the same external id replaced. */
  superseded: number;
}

/**
 * Stores the rows in one transaction. A row that the database refuses although it passed every check is found by halving, so
 * that it fails alone.
 * @throws where the database is away
 */
export async function storeRows(
  db: Kysely<Database>,
  appId: number,
  rows: ImportRow[],
  options: ImportOptions,
): Promise<StoredRows> {
  const registrations = rows.map((row) => row.registration);
  try {
    const { superseded } = await inTransaction(db, (trx) => importDevices(trx, appId, registrations, options));
    return { failures: [], superseded };
  } catch (cause) {
    const error = toApiError(cause);
    if (error.code === 'database_unavailable') throw cause;
    if (rows.length === 1) {
      const { line, registration } = rows[0]!;
      return { failures: [{ line, externalId: registration.externalId, error }], superseded: 0 };
    }
    const middle = rows.length >> 1;
    const before = await storeRows(db, appId, rows.slice(0, middle), options);
    const after = await storeRows(db, appId, rows.slice(middle), options);
    return {
      failures: [...before.failures, ...after.failures],
      superseded: before.superseded + after.superseded,
    };
  }
}
