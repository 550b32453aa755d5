import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** Reaches a database that was migrated, or throws. */
export async function probeDatabase(db: Kysely<Database>): Promise<void> {
  await sql`select 1 from notifications limit 1`.execute(db);
}

/**
 * What keeps a program from its database, in words for whoever set it up. Never the URL: it holds the password.
 * SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
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

/** The same for everyone to see: SQLSTATE or the system's code, no names. */
export function databaseErrorCode(error: unknown): string {
  return rootOf(error).code ?? 'no connection';
}

/** Wrong credentials, no such database: only a person can change that, where an absent server may come back by itself. */
export function isWrongDatabase(error: unknown): boolean {
  return /^(28000|28P01|3D000)$/.test(rootOf(error).code ?? '');
}

function rootOf(error: unknown): { code?: string; message: string } {
  // Node tries every address of a host and reports all failures as one.
  const root = (error instanceof AggregateError && error.errors[0]) || error;
  const { code, message } = root as { code?: unknown; message?: unknown };
  return { ...(typeof code === 'string' && { code }), message: typeof message === 'string' ? message : String(root) };
}
