import type { Kysely } from 'kysely';

/** Webhooks: what is told to other systems, and how far each was told. */
export async function up(_db: Kysely<unknown>): Promise<void> {}
