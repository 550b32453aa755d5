import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import pg from 'pg';
import { connect } from '../../db/connect.ts';
import type { Database } from '../../db/schema.ts';
import { getDatabaseAdminUrl } from './environment.ts';
import { databaseUrl } from './services.ts';

/** A database that no migration has seen, and connections of several programs to it. */
export async function withEmptyDatabase(
  use: (...programs: Kysely<Database>[]) => Promise<void>,
  programs = 1,
): Promise<void> {
  const adminUrl = await getDatabaseAdminUrl();
  const name = `empty_${randomUUID().replaceAll('-', '')}`;
  const admin = new pg.Client({ connectionString: adminUrl });
  await admin.connect();
  try {
    await admin.query(`create database ${name}`);
    const url = databaseUrl(adminUrl, name);
    const dbs = Array.from({ length: programs }, () => connect(url, { maxConnections: 2 }).db);
    try {
      await use(...dbs);
    } finally {
      await Promise.all(dbs.map((db) => db.destroy()));
    }
  } finally {
    await admin.query(`drop database if exists ${name} with (force)`);
    await admin.end();
  }
}
