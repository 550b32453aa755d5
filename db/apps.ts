import type { Kysely } from 'kysely';
import type { Database } from './schema.ts';

export interface App {
  id: number;
  name: string;
  apnsTopic: string | null;
  fcmProjectId: string | null;
}

/** App `default` exists from the first migration on. */
export async function findAppByName(db: Kysely<Database>, name: string): Promise<App | undefined> {
  const row = await db
    .selectFrom('apps')
    .select(['id', 'name', 'apns_topic', 'fcm_project_id'])
    .where('name', '=', name)
    .executeTakeFirst();
  return row && { id: row.id, name: row.name, apnsTopic: row.apns_topic, fcmProjectId: row.fcm_project_id };
}
