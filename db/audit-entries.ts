import { type Kysely, sql } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import type { JsonObject } from '../domain/json.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import type { Database } from './schema.ts';

/** One change, for those who ask later who made it. */
export interface Change {
  /** Null: of the installation. */
  appId: number | null;
  /** `notification.launch` */
  action: string;
  target: { kind: string; id: string };
  /** What is different now; never a secret, a device token or the text of a message. */
  changes?: JsonObject;
}

/** Part of the transaction that makes the change. */
export async function recordChange(db: Kysely<Database>, actor: Actor, change: Change): Promise<void> {
  const { appId, action, target, changes = {} } = change;
  await sql`select record_audit_entry(${uuidV7()}, ${appId}, ${actor.kind}, ${actor.id}, ${actor.requestId}, ${actor.address},
    ${action}, ${target.kind}, ${target.id}, ${JSON.stringify(changes)})`.execute(db);
}
