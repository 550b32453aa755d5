import { type Kysely, type RawBuilder, sql } from 'kysely';
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
  await sql`select ${auditEntry(actor, change)}`.execute(db);
}

type InSql<T> = { [K in keyof T]: T[K] | RawBuilder<unknown> | (T[K] extends { id: string } ? InSql<T[K]> : never) };

/** Records a change within the statement that makes it, with what that knows of it. */
export function auditEntry(actor: Actor, change: InSql<Change>): RawBuilder<void> {
  const { appId, action, target, changes = {} } = change;
  const { kind, id } = target as InSql<Change['target']>;
  return sql`record_audit_entry(${uuidV7()}, ${appId}, ${actor.kind}, ${actor.id}, ${actor.requestId}, ${actor.address},
    ${action}, ${kind}, ${id}, ${JSON.stringify(changes)})`;
}

/** A change, as it was recorded. */
export interface AuditEntry extends Required<Change> {
  /** UUID v7. */
  id: string;
  at: Date;
  /** As it was called then. */
  appName: string | null;
  actor: Actor;
}

export interface AuditSearch {
  appName?: string | undefined;
  actor?: string | undefined;
  action?: string | undefined;
  targetKind?: string | undefined;
  targetId?: string | undefined;
  /** Included. */
  since?: Date | undefined;
  /** Not included. */
  until?: Date | undefined;
}

/** Newest first; `cursor` is the last id of the page before. An app is found by the name that it had then, also when it is gone. */
export async function listAuditEntriesOfAllApps(
  db: Kysely<Database>,
  search: AuditSearch,
  page: { cursor?: string | undefined; limit: number },
): Promise<AuditEntry[]> {
  const equal = {
    ...{ app_name: search.appName, actor: search.actor, action: search.action },
    ...{ target_kind: search.targetKind, target_id: search.targetId },
  } as const;
  let query = db
    .selectFrom('audit_entries')
    .selectAll()
    .select(sql<Date>`uuid_v7_instant(id)`.as('at'))
    .orderBy('id', 'desc')
    .limit(page.limit);
  for (const [column, value] of Object.entries(equal)) {
    if (value !== undefined) query = query.where(column as keyof typeof equal, '=', value);
  }
  if (page.cursor !== undefined) query = query.where('id', '<', page.cursor);
  if (search.since !== undefined) query = query.where(sql<boolean>`id >= ${floorOf(search.since)}`);
  if (search.until !== undefined) query = query.where(sql<boolean>`id < ${floorOf(search.until)}`);
  return (await query.execute()).map((row) => ({
    ...{ id: row.id, at: row.at, appId: row.app_id, appName: row.app_name, action: row.action },
    actor: { kind: row.actor_kind, id: row.actor, requestId: row.request_id, address: row.address },
    ...{ target: { kind: row.target_kind, id: row.target_id }, changes: row.changes },
  }));
}

/** A UUID v7 knows no instant before 1970. */
function floorOf(instant: Date): RawBuilder<string> {
  return sql`uuid_v7_floor(greatest(${instant}::timestamptz, to_timestamp(0)))`;
}

/**
 * Drops whole months that ended so many months ago. The statement must not wait for long: it holds up all that is recorded meanwhile.
 * @returns the months
 */
export async function dropAuditMonths(db: Kysely<Database>, months: number): Promise<string[]> {
  const { rows } = await sql<{ partition: string }>`
    select * from drop_audit_months(now() - make_interval(months => ${months})) as partition
  `.execute(db);
  return rows.map(({ partition }) => partition);
}
