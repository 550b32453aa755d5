import { type Kysely, sql } from 'kysely';
import type { Audience } from '../domain/audience.ts';
import type { Message } from '../domain/message.ts';
import type { Notification } from '../domain/notification.ts';
import type { InDoubtPolicy } from '../domain/notification-state.ts';
import { findNotification } from './notifications.ts';
import type { Database } from './schema.ts';

interface NewNotification {
  id: string;
  appId: number;
  title: string | null;
  message: Message;
  audience: Audience;
  inDoubtPolicy: InDoubtPolicy;
  ratePerSecond: number | null;
  idempotencyKey?: string | undefined;
  /** Tells a repeat of the same request from another request under the same key. */
  requestHash?: string | undefined;
}

/** Stores a draft. With an idempotency key that the app used before, nothing is stored and the earlier row's id and hash come back. */
export async function insertNotification(
  db: Kysely<Database>,
  input: NewNotification,
): Promise<{ isNew: true } | { isNew: false; id: string; requestHash: string | null }> {
  const inserted = await db
    .insertInto('notifications')
    .values({
      id: input.id,
      app_id: input.appId,
      state: 'draft',
      title: input.title,
      message: JSON.stringify(input.message),
      audience: JSON.stringify(input.audience),
      listed: sql`listed_counts(${input.appId}, ${JSON.stringify(input.audience)}::jsonb, null)`,
      in_doubt_policy: input.inDoubtPolicy,
      rate_per_second: input.ratePerSecond,
      idempotency_key: input.idempotencyKey ?? null,
      request_hash: input.requestHash ?? null,
    })
    .onConflict((oc) => oc.constraint('notifications_app_idempotency_key').doNothing())
    .returning('id')
    .executeTakeFirst();
  if (inserted) return { isNew: true };
  const earlier = await db
    .selectFrom('notifications')
    .select(['id', 'request_hash'])
    .where('app_id', '=', input.appId)
    .where('idempotency_key', '=', input.idempotencyKey ?? '')
    .executeTakeFirstOrThrow();
  return { isNew: false, id: earlier.id, requestHash: earlier.request_hash };
}

/** Only a draft can be changed or deleted; undefined: not found or no draft any more. */
export async function updateDraft(
  db: Kysely<Database>,
  appId: number,
  id: string,
  change: Partial<Pick<NewNotification, 'title' | 'message' | 'audience' | 'inDoubtPolicy' | 'ratePerSecond'>>,
): Promise<Notification | undefined> {
  const audience = change.audience && JSON.stringify(change.audience);
  const updated = await db
    .updateTable('notifications')
    .set({
      updated_at: sql`now()`,
      ...(change.title !== undefined && { title: change.title }),
      ...(change.message !== undefined && { message: JSON.stringify(change.message) }),
      ...(audience !== undefined && {
        audience,
        listed: sql`listed_counts(app_id, ${audience}::jsonb, listed -> 'uploaded')`,
        // An audience that no longer asks for its uploaded list has forgotten it.
        audience_list_id: sql`case when ${audience}::jsonb ? 'uploaded' then audience_list_id end`,
      }),
      ...(change.inDoubtPolicy !== undefined && { in_doubt_policy: change.inDoubtPolicy }),
      ...(change.ratePerSecond !== undefined && { rate_per_second: change.ratePerSecond }),
    })
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('state', '=', 'draft')
    .returning('id')
    .executeTakeFirst();
  return updated && findNotification(db, appId, id);
}

/** True when a draft was deleted. */
export async function deleteDraft(db: Kysely<Database>, appId: number, id: string): Promise<boolean> {
  const result = await db
    .deleteFrom('notifications')
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .where('state', '=', 'draft')
    .executeTakeFirst();
  return result.numDeletedRows > 0n;
}
