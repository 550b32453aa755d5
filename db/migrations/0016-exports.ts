import type { Kysely } from 'kysely';

/** Books of finished sends that were uploaded, and what exports are paged by. */
export async function up(_db: Kysely<unknown>): Promise<void> {}
