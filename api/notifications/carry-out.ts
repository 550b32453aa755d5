import type { Kysely } from 'kysely';
import { recordChange } from '../../db/audit-entries.ts';
import type { Move } from '../../db/notification-moves.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { Actor } from '../../domain/actor.ts';
import type { App } from '../../domain/app.ts';
import type { JsonObject } from '../../domain/json.ts';
import type { Notification } from '../../domain/notification.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { notFound } from '../http/api-error.ts';
import { stateConflict } from './state-conflict.ts';

/**
 * Makes a move of a notification, records who made it, and wakes its workflow.
 * @returns the notification after it
 * @throws {ApiError} 404, or 409 with the state that forbids `verb`
 */
export async function carryOut(
  deps: ApiDependencies,
  { app, actor }: { app: App; actor: Actor },
  verb: string,
  make: (db: Kysely<Database>, appId: number) => Promise<Move | undefined>,
  changes: JsonObject = {},
): Promise<Notification> {
  const moved = await inTransaction(deps.db, async (trx) => {
    const move = checked(verb, await make(trx, app.id));
    if (move.isChanged) await recordNotificationChange(trx, actor, verb, move.notification, changes);
    return move.notification;
  });
  await wakeIfLaunched(deps, moved);
  return moved;
}

/** @throws {ApiError} */
export function checked(verb: string, move: Move | undefined): Move {
  if (!move) throw notFound('notification');
  if (!move.ok) throw stateConflict(verb, move.notification);
  return move;
}

export function recordNotificationChange(
  db: Kysely<Database>,
  actor: Actor,
  verb: string,
  { appId, id }: Pick<Notification, 'appId' | 'id'>,
  changes: JsonObject = {},
): Promise<void> {
  return recordChange(db, actor, {
    ...{ appId, action: `notification.${verb}`, target: { kind: 'notification', id }, changes },
  });
}

/** A draft has no workflow. */
export async function wakeIfLaunched({ waker }: ApiDependencies, notification: Notification): Promise<void> {
  if (notification.launchedAt || notification.scheduledAt) await waker.wake(notification);
}
