import { chmodSync, mkdtempSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { connect } from '../../db/connect.ts';
import { migrate } from '../../db/migrate.ts';
import { type LeashHolder, startLeash } from '../../local/leash-holder.ts';
import { findFreePort } from '../../local/ports.ts';
import { type LocalPostgres, startPostgres } from '../../local/postgres.ts';
import { type LocalTemporal, startTemporal } from '../../local/temporal.ts';

/** A folder for one run of tests and the leash that ends its servers and removes it, however the run ends. */
export interface TestRun {
  directory: string;
  leash: LeashHolder;
}

/** The database that every test database is a copy of. */
export const templateDatabase = 'carillon_template';

export function startTestRun(): TestRun {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-test-'));
  // PostgreSQL, as an unprivileged user, must be able to pass through.
  chmodSync(directory, 0o755);
  const leash = startLeash();
  leash.removeAtEnd(directory);
  return { directory, leash };
}

/** PostgreSQL with the migrated template database in it. */
export async function startTestPostgres({ directory, leash }: TestRun): Promise<LocalPostgres> {
  const postgres = await startPostgres({
    dataDirectory: path.join(directory, 'postgres'),
    port: await findFreePort(),
    logFile: path.join(directory, 'postgres.log'),
    leash,
    settings: { max_wal_size: '1GB' },
  });
  const admin = new pg.Client({ connectionString: postgres.adminUrl });
  await admin.connect();
  await admin.query(`create database ${templateDatabase}`);
  await admin.end();
  const template = connect(databaseUrl(postgres.adminUrl, templateDatabase), { maxConnections: 1 });
  await migrate(template.db);
  await template.db.destroy();
  return postgres;
}

/** Temporal's dev server without Web UI, everything in memory. */
export async function startTestTemporal({ directory, leash }: TestRun): Promise<LocalTemporal> {
  return startTemporal({
    port: await findFreePort(),
    logFile: path.join(directory, 'temporal.log'),
    leash,
    say: (line) => console.error(line),
  });
}

/** The same server and role, another database. */
export function databaseUrl(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${database}`;
  return other.href;
}
