import type { Kysely } from 'kysely';

/** What apps say of a message after it arrived: counted once for each device. */
export async function up(_db: Kysely<unknown>): Promise<void> {}
