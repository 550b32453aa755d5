import { type Kysely, sql } from 'kysely';

/** Books of finished sends that were uploaded to object storage. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table notifications add column exported_at timestamptz`.execute(db);
  // What is to be uploaded is found without a look at what was; where nothing is, its range begins behind all of them.
  await sql`
    create index notifications_unexported_idx on notifications (finished_at)
      where exported_at is null and finished_at is not null and launched_at is not null
  `.execute(db);
  // Sends that ended before the bucket was set are not uploaded by themselves.
  await sql`
    create table book_stores (
      name text not null,
      set_at timestamptz not null default clock_timestamp(),
      constraint book_stores_pkey primary key (name)
    )
  `.execute(db);
}
