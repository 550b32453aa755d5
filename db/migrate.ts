import { type Kysely, sql } from 'kysely';
import { type Migration, Migrator } from 'kysely/migration';
import { readCommandLine } from '../domain/command-line.ts';
import { loadConfig } from '../domain/config.ts';
import type { ProviderName } from '../domain/device.ts';
import { carryRowsOver } from './carry-rows-over.ts';
import { connect } from './connect.ts';
import { describeDatabaseError } from './database-error.ts';
import { createDeliveryPartitions } from './delivery-partitions.ts';
import * as books from './migrations/0001-books.ts';
import * as windows from './migrations/0002-windows.ts';
import * as liveTokenIndex from './migrations/0003-live-token-index.ts';
import * as registry from './migrations/0004-registry.ts';
import * as hostsAndMonths from './migrations/0005-hosts-and-months.ts';
import * as tokenEvidence from './migrations/0006-token-evidence.ts';
import * as noFirstDispatch from './migrations/0007-no-first-dispatch.ts';
import * as dropFirstDispatch from './migrations/0008-drop-first-dispatch.ts';
import * as deliveryGroups from './migrations/0009-delivery-groups.ts';
import * as liveTokenDigest from './migrations/0010-live-token-digest.ts';
import * as chunkInOneStatement from './migrations/0011-chunk-in-one-statement.ts';
import * as lanes from './migrations/0012-lanes.ts';
import * as apps from './migrations/0013-apps.ts';
import * as webhooks from './migrations/0014-webhooks.ts';
import * as events from './migrations/0015-events.ts';
import * as exports from './migrations/0016-exports.ts';
import type { Database } from './schema.ts';

/**
 * Named imports instead of a folder scan: the same list on Node, on Deno and in an image.
 * @internal
 */
export const migrations = {
  '0001-books': books,
  '0002-windows': windows,
  '0003-live-token-index': liveTokenIndex,
  '0004-registry': registry,
  '0005-hosts-and-months': hostsAndMonths,
  '0006-token-evidence': tokenEvidence,
  '0007-no-first-dispatch': noFirstDispatch,
  '0008-drop-first-dispatch': dropFirstDispatch,
  '0009-delivery-groups': deliveryGroups,
  '0010-live-token-digest': liveTokenDigest,
  '0011-chunk-in-one-statement': chunkInOneStatement,
  '0012-lanes': lanes,
  '0013-apps': apps,
  '0014-webhooks': webhooks,
  '0015-events': events,
  '0016-exports': exports,
} satisfies Record<string, Migration>;

/** The constraints `…_provider_check` list the providers by name: the migration that lets each one in. */
export const providerMigrations = {
  apns: '0001-books',
  fcm: '0001-books',
} satisfies Record<ProviderName, keyof typeof migrations>;

/**
 * Brings the schema up to date, a transaction for each migration, carries over what an earlier release stored, and makes the partitions
 * of the coming months. Any number of processes may call this at once; a repeat changes nothing.
 * @throws the first migration's error; that migration is rolled back, earlier ones stay.
 */
export async function migrate(db: Kysely<Database>, onCarried = (_batches: number) => {}): Promise<string[]> {
  return db.connection().execute(async (connection) => {
    // Kysely's migrator looks at all tables before it takes its own lock, and fails when another process drops a column meanwhile.
    await sql`select pg_advisory_lock(${migrationLock})`.execute(connection);
    try {
      const applied = await applyAll(connection);
      await carryRowsOver(connection, onCarried);
      await createDeliveryPartitions(connection);
      return applied;
    } finally {
      await sql`select pg_advisory_unlock(${migrationLock})`.execute(connection);
    }
  });
}

/** Any number that nothing else in this database uses. */
const migrationLock = 7_203_002;

async function applyAll(db: Kysely<Database>): Promise<string[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const applied: string[] = [];
  for (;;) {
    const { error, results = [] } = await migrator.migrateUp();
    if (error) throw error;
    if (results.length === 0) return applied;
    applied.push(...results.map((result) => result.migrationName));
  }
}

if (import.meta.main) {
  const { refuse } = readCommandLine('npm run migrate\n\n  Brings the database of DATABASE_URL up to date.', {});
  if (!process.env.DATABASE_URL) refuse('DATABASE_URL is not set.');
  const { db } = connect(loadConfig(process.env).databaseUrl, {
    maxConnections: 1,
    applicationName: 'carillon-migrate',
    // An index over a hundred million devices takes what it takes.
    statementTimeoutMs: 0,
  });
  try {
    const applied = await migrate(db, (batches) => {
      if (batches % 1_000 === 0) console.log(`Outcomes of ${batches} batches are carried over into groups.`);
    });
    console.log(applied.length === 0 ? 'The database is up to date.' : `Applied: ${applied.join(', ')}`);
  } catch (error) {
    console.error(`The database is not up to date: ${describeDatabaseError(error)}.`);
    process.exitCode = 1;
  } finally {
    await db.destroy();
  }
}
