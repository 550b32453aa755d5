import { type Kysely, sql } from 'kysely';
import { migrations } from './migrate.ts';
import type { Database } from './schema.ts';

export interface MigrationState {
  /** Needed by this code, and not applied. */
  missing: string[];
  /** Applied, and not known to this code: a later release has been here. */
  unknown: string[];
  /** The last one that was applied. */
  latest: string;
  appliedAt: Date;
}

/** Of a database that was migrated before. @throws 42P01 where it was not */
export async function readMigrationState(db: Kysely<Database>): Promise<MigrationState> {
  const { rows } = await sql<{ name: string; applied_at: Date }>`
    select name, timestamp::timestamptz as applied_at from kysely_migration order by name
  `.execute(db);
  const applied = rows.map(({ name }) => name);
  const known = Object.keys(migrations);
  return {
    missing: known.filter((name) => !applied.includes(name)),
    unknown: applied.filter((name) => !known.includes(name)),
    latest: applied.at(-1) ?? 'none',
    appliedAt: rows.at(-1)?.applied_at ?? new Date(0),
  };
}
