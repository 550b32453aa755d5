import { type Kysely, sql } from 'kysely';
import type { Database } from './schema.ts';

/** Partitions for this month and the three after it. A repeat changes nothing. */
export async function createDeliveryPartitions(db: Kysely<Database>): Promise<void> {
  await sql`select create_delivery_partitions((now() at time zone 'UTC')::date, 4)`.execute(db);
}

/** The partition of this notification's month, where it is missing: for workers that record without sending. */
export async function ensureDeliveryPartition(db: Kysely<Database>, notificationId: string): Promise<void> {
  await sql`select create_delivery_partition(uuid_v7_instant(${notificationId}))`.execute(db);
}
