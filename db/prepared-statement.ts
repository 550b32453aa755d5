import type pg from 'pg';

/**
 * The statements on the path of every device have names. PostgreSQL parses and plans such a statement once for each connection;
 * Kysely's are parsed and planned each time, which costs as much as a hundred rows.
 */
export interface PreparedStatement {
  name: string;
  text: string;
}

/** A pool, or one client of it inside a transaction. */
export type StatementClient = Pick<pg.ClientBase, 'query'>;

/** A parameter for `bigint[]` or `integer[]`. pg would quote and escape every single number. */
export function numberArray(numbers: number[]): string {
  return `{${numbers.join()}}`;
}
