import { Kysely, PostgresDialect, type PostgresPoolClient, type Transaction } from 'kysely';
import pg from 'pg';
import type { Database } from './schema.ts';

export interface ConnectOptions {
  /** Default 10. */
  maxConnections?: number;
  /** Shown in pg_stat_activity. */
  applicationName?: string;
  /** A statement that runs longer is ended by PostgreSQL; default 60 000, 0: never. */
  statementTimeoutMs?: number;
  /** Called when an idle connection breaks (PostgreSQL restarted): the pool replaces it by itself. */
  onIdleError?: (error: Error) => void;
}

/** One pool and the Kysely over it. `pool` serves what Kysely cannot: statements that PostgreSQL keeps prepared. `db.destroy()` ends both. */
export interface DatabaseHandle {
  db: Kysely<Database>;
  pool: pg.Pool;
}

const int8Oid = 20;
const int8ArrayOid = 1016;

/** Row ids and counts stay far below 2^53; as texts they would be compared as texts. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === int8Oid) return Number;
    if (oid === int8ArrayOid) return (text: string) => (text === '{}' ? [] : text.slice(1, -1).split(',').map(Number));
    return pg.types.getTypeParser(oid, format);
  },
} as pg.CustomTypesConfig;

/** Opens no connection yet; the first query does, within 10 s. */
export function connect(databaseUrl: string, options: ConnectOptions = {}): DatabaseHandle {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: options.maxConnections ?? 10,
    application_name: options.applicationName ?? 'carillon',
    statement_timeout: options.statementTimeoutMs ?? 60_000,
    connectionTimeoutMillis: 10_000,
    types,
    keepAlive: true,
  });
  pool.on('error', (error) => options.onIdleError?.(error));
  // A connection that breaks while it is lent out reports to the statement that runs on it, and as an event as well: without a
  // listener for that the process would end with every restart of PostgreSQL.
  pool.on('connect', (client) => client.on('error', () => {}));
  return { db: new Kysely<Database>({ dialect: new PostgresDialect({ pool }) }), pool };
}

/**
 * One transaction with both faces: Kysely, and the raw client for prepared statements. Rolled back when `run` throws.
 * A client whose transaction did not end cleanly is thrown away, not returned to the pool.
 */
export async function transactionWithClient<T>(
  pool: pg.Pool,
  run: (trx: Transaction<Database>, client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  let failure: Error | undefined;
  try {
    const lent = {
      query: client.query.bind(client),
      release: () => {},
    } as PostgresPoolClient;
    const dialect = new PostgresDialect({ pool: { connect: async () => lent, end: async () => {}, options: {} } });
    return await new Kysely<Database>({ dialect }).transaction().execute((trx) => run(trx, client));
  } catch (error) {
    failure = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    client.release(failure);
  }
}
