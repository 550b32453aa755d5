import { deleteContents } from '../db/app-contents.ts';
import { deleteApp, findDeletionOfAnyApp, noteAllCancelled } from '../db/app-deletion.ts';
import {
  cancelEntries,
  hasPendingEntries,
  listLaneIds,
  listUncancelledNotifications,
  listUnsettledNotifications,
} from '../db/app-standstill.ts';
import { claimLane } from '../db/lanes.ts';
import { cancelNotification } from '../db/notification-moves.ts';
import type { AppDeletionStep, DeleteAppInput } from '../domain/app-deletion.ts';
import type { ActivityDeps } from './activities.ts';
import { settleCancelled } from './settle-cancelled.ts';

/** Of one step. Then Temporal hears of it, and its UI shows how far it is. */
const stepMs = 10_000;
/** Between two looks at what others have to end. */
const lookMs = 1_000;
/** For so long after the request an API process may believe a key that is revoked, or finish what it had begun. */
const echoMs = 15_000;
/** Workers have so long to record what was under way when it was cancelled; then it is ended without them. */
const patienceMs = 60_000;

/**
 * A step of an app's deletion: what is under way is ended, then rows are deleted, page by page. Keyed by what is there: a step that was
 * stopped anywhere is repeated with what is left.
 */
export async function deleteAppStep(
  deps: ActivityDeps,
  { appId }: DeleteAppInput,
  stop: AbortSignal,
): Promise<AppDeletionStep> {
  const { db, log } = deps;
  const found = await findDeletionOfAnyApp(db, appId);
  if (!found) return { stage: 'gone', pauseMs: 0 };
  const { name, msSinceRequest } = found;
  const until = performance.now() + stepMs;

  async function report(stage: AppDeletionStep['stage'], pauseMs: number): Promise<AppDeletionStep> {
    const { deletion } = (await findDeletionOfAnyApp(db, appId)) ?? found!;
    return { stage, name, deletion, pauseMs, ...(deps.search?.isOn && { isSearchable: true }) };
  }

  if (!(await bringToStandstill(deps, appId, stop))) return report('ending', lookMs);
  for await (const _ of deleteContents(db, appId)) {
    stop.throwIfAborted();
    if (performance.now() >= until) return report('deleting', 0);
  }
  if (msSinceRequest < echoMs) return report('waiting', lookMs);
  const last = await report('gone', 0);
  if (!(await deleteApp(db, appId))) return { ...last, stage: 'deleting' };
  log.info({ appId, name, ...last.deletion }, 'app deleted');
  return last;
}

/**
 * Cancels all that is under way, as the API would. Workers record how it ends; what is left a minute later is settled here.
 * @returns whether nothing is under way any more
 */
async function bringToStandstill(deps: ActivityDeps, appId: number, stop: AbortSignal): Promise<boolean> {
  const { db } = deps;
  for (;;) {
    const ids = await listUncancelledNotifications(db, appId);
    if (ids.length === 0) break;
    for (const id of ids) {
      await cancelNotification(db, appId, id);
      stop.throwIfAborted();
    }
  }
  await cancelMessages(deps, appId, stop);
  await noteAllCancelled(db, appId);
  if (await isAtRest(deps, appId)) return true;
  const { msSinceCancel = 0 } = (await findDeletionOfAnyApp(db, appId)) ?? {};
  if (msSinceCancel < patienceMs) return false;
  for (const id of await listUnsettledNotifications(db, appId)) await settleCancelled(deps, id, stop);
  // Whoever had a lane writes nothing more: what it left behind is in doubt, and can be cancelled.
  for (const laneId of await listLaneIds(db, appId)) await claimLane(db, laneId);
  await cancelMessages(deps, appId, stop);
  return isAtRest(deps, appId);
}

async function isAtRest({ db }: ActivityDeps, appId: number): Promise<boolean> {
  return (await listUnsettledNotifications(db, appId)).length === 0 && !(await hasPendingEntries(db, appId));
}

async function cancelMessages({ db }: ActivityDeps, appId: number, stop: AbortSignal): Promise<void> {
  for (const laneId of await listLaneIds(db, appId)) {
    for (let from: number | undefined = 0; from !== undefined; ) {
      from = await cancelEntries(db, appId, laneId, from);
      stop.throwIfAborted();
    }
  }
}
