import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import type { Database } from './schema.ts';

export interface ConnectOptions {
  /** Default 10. */
  maxConnections?: number;
  /** Shown in pg_stat_activity. */
  applicationName?: string;
  /** A statement that runs longer is ended by PostgreSQL; default 60 000. */
  statementTimeoutMs?: number;
  /** Called when an idle connection breaks (PostgreSQL restarted): the pool replaces it by itself. */
  onIdleError?: (error: Error) => void;
}

/** One pool and the Kysely over it. `pool` serves what Kysely cannot: COPY. `db.destroy()` ends both. */
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
  return { db: new Kysely<Database>({ dialect: new PostgresDialect({ pool }) }), pool };
}
