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
/** `integer[]`, `bigint[]`: pg's own parser takes twenty times as long. */
const numberArrayOids = [1007, 1016];

function toNumber(item: string): number | null {
  return item === 'NULL' ? null : Number(item);
}

/** Row ids and counts stay far below 2^53; as texts they would be compared as texts. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === int8Oid) return Number;
    if (numberArrayOids.includes(oid))
      return (text: string) => (text === '{}' ? [] : text.slice(1, -1).split(',').map(toNumber));
    return pg.types.getTypeParser(oid, format);
  },
} as pg.CustomTypesConfig;

/**
 * Whatever the server, the database or the role has as defaults, a session of ours reads and writes by these: pg parses the
 * texts of dates, intervals, bytea and numbers in PostgreSQL's usual forms, statements compare instants in UTC, and every
 * transaction counts on seeing what others committed meanwhile. `default_transaction_read_only` is not among them: hosts set
 * it when a disk is full.
 */
const sessionSettings: Record<string, string> = {
  DateStyle: 'ISO,MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  bytea_output: 'hex',
  extra_float_digits: '1',
  array_nulls: 'on',
  standard_conforming_strings: 'on',
  transform_null_equals: 'off',
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
};
/** PostgreSQL's own default; to keep Carillon in another schema, say so in the URL: `?options=-csearch_path%3Dcarillon`. */
const usualSearchPath = { search_path: '"$user",public' };

/**
 * Sends the settings with the start of the session: they cost no round trip, outrank the defaults of database and role, and
 * are what a `RESET` goes back to (https://www.postgresql.org/docs/current/config-setting.html). Later ones win.
 */
class PinnedClient extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(config);
    // What the URL or PGOPTIONS say, put together by pg.
    const { connectionParameters } = this as unknown as { connectionParameters: { options?: string } };
    const { options = '' } = connectionParameters;
    connectionParameters.options = `${flags(usualSearchPath)} ${options} ${flags(sessionSettings)}`;
  }
}

function flags(settings: Record<string, string>): string {
  return Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${value.replaceAll(' ', '\\ ')}`)
    .join(' ');
}

/** Opens no connection yet; the first query does, within 10 s. */
export function connect(databaseUrl: string, options: ConnectOptions = {}): DatabaseHandle {
  const pool = new pg.Pool({
    Client: PinnedClient,
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
