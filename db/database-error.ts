import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** What an error of PostgreSQL, or of the way to it, means. Every other question about such an error is answered from this one. */
type DatabaseFault =
  /** The server is gone, starting, full, or read-only (a standby after a fail-over): it may be back at the next try. */
  | 'away'
  /** PostgreSQL ended the transaction in favour of another: run again, it may pass. */
  | 'conflict'
  /** The statement took longer than it may, or an operator ended it. */
  | 'cancelled'
  /** Wrong credentials, no such database: only a person can change that. */
  | 'misconfigured'
  /** A value that its column cannot hold, or an index entry above its limit. */
  | 'unstorable'
  /** A constraint, a missing partition, a trigger or a missing right forbids it. */
  | 'forbidden'
  /** A fault in the statement, or no error of the database at all. */
  | 'other';

/** SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), or the system's code where no server answered. */
const codes: readonly [DatabaseFault, RegExp][] = [
  ['away', /^(08...|25006|53...|57P0[1-5]|ECONN\w+|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/],
  ['conflict', /^(40001|40P01)$/],
  ['cancelled', /^57...$/],
  ['misconfigured', /^(28000|28P01|3D000)$/],
  ['unstorable', /^(22...|54000)$/],
  ['forbidden', /^(23...|P0...|42501)$/],
];

/** pg gives no code to these: the connection ended under a query, or the pool had none in time. */
const messagesOfAway =
  /connection terminated|timeout exceeded when trying to connect|not queryable|client has encountered a connection error/i;

export function databaseFault(error: unknown): DatabaseFault {
  const { code, message } = rootOf(error);
  const [fault] = codes.find(([, pattern]) => code !== undefined && pattern.test(code)) ?? [];
  if (fault) return fault;
  if (messagesOfAway.test(message)) return 'away';
  return error instanceof Error && error.cause !== undefined ? databaseFault(error.cause) : 'other';
}

/** The same statement may succeed by itself, a little later. */
export function isTransientDatabaseError(error: unknown): boolean {
  const fault = databaseFault(error);
  return fault === 'away' || fault === 'conflict';
}

/** The statement is understood and refused: another try would end the same. */
export function isRefusedByDatabase(error: unknown): error is Error {
  const fault = databaseFault(error);
  return error instanceof Error && (fault === 'unstorable' || fault === 'forbidden');
}

/** Reaches a database that was migrated, or throws. */
export async function probeDatabase(db: Kysely<Database>): Promise<void> {
  await sql`select 1 from notifications limit 1`.execute(db);
}

/** What keeps a program from its database, in words for the person who set it up. Never the URL: it holds the password. */
export function describeDatabaseError(error: unknown): string {
  const { code, message } = rootOf(error);
  if (code === '28P01') return 'PostgreSQL refuses the user or the password of DATABASE_URL (28P01)';
  if (code === '28000') return `PostgreSQL refuses the log-in of DATABASE_URL: ${message} (28000)`;
  if (code === '3D000') return `${message} (3D000); DATABASE_URL names it`;
  if (code === '42P01') return `${message} (42P01): it was not migrated; run npm run migrate`;
  if (code === 'ECONNREFUSED') return 'nothing listens at the address of DATABASE_URL (ECONNREFUSED)';
  if (code === 'ENOTFOUND') return 'the host of DATABASE_URL is not known (ENOTFOUND)';
  return code === undefined || message.includes(code) ? message : `${message} (${code})`;
}

/** For everyone to see: SQLSTATE or the system's code, no names. */
export function databaseErrorCode(error: unknown): string {
  return rootOf(error).code ?? 'no connection';
}

function rootOf(error: unknown): { code?: string; message: string } {
  // Node tries every address of a host and reports all failures as one.
  const root = (error instanceof AggregateError && error.errors[0]) || error;
  const { code, message } = (root ?? {}) as { code?: unknown; message?: unknown };
  return { ...(typeof code === 'string' && { code }), message: typeof message === 'string' ? message : String(root) };
}
