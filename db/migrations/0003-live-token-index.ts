import { type Kysely, sql } from 'kysely';

/**
 * The index of live tokens begins with the token. With the app in front PostgreSQL took it, on statistics from before a large
 * import, for a way to "all live devices of the app", and read a million of them in search of two that were asked for by name.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  // Built beside the old one, so that only the exchange keeps readers waiting; registrations wait for the whole of it.
  await sql`
    create unique index devices_live_token_new on devices (device_token, app_id, provider)
      where retired_at is null and device_token is not null
  `.execute(db);
  await sql`drop index devices_live_token_key`.execute(db);
  await sql`alter index devices_live_token_new rename to devices_live_token_key`.execute(db);
}
