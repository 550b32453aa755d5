import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { isTransientDatabaseError } from '../db/database-error.ts';
import { haltNotificationOfAnyApp } from '../db/notification-moves.ts';
import { listUnfinishedOfAllApps, type UnfinishedNotification } from '../db/notification-steering.ts';
import { getNotificationOfAnyApp } from '../db/notifications.ts';
import { notificationWorkflowId, notificationWorkflowType } from '../domain/ids.ts';
import { labelsOf, notificationStart } from '../domain/notification-start.ts';
import { pause } from '../domain/pause.ts';
import { halts } from '../telemetry/delivery-metrics.ts';
import { reconcilerFindings, reconcilerRounds } from '../telemetry/reconciler-metrics.ts';
import type { ActivityDeps } from './activities.ts';
import { startAppDeletions } from './start-app-deletions.ts';
import { startMissingLanes } from './start-lanes.ts';
import { isTemporalAway } from './temporal-away.ts';

/** A change this young may still be on its way by the API's own signal. */
const graceMs = 3_000;
const pageSize = 200;
const deadlineMs = 5_000;

/**
 * One round of healing: notifications that should have a workflow are looked up in Temporal, by id. Missing or ended too
 * early: started; with a change that it has not seen: woken; terminated or failed: shown as `halted`, for `resume` to start again.
 * A repeat is harmless, and so are two workers that do this at once.
 *
 * Where thousands are open and nothing is wrong with them, a round ends with a page of them, for a look costs Temporal as much as a
 * step of a send.
 * @returns where the next round goes on; undefined: from the start
 * @internal
 */
export async function reconcile(
  deps: ActivityDeps,
  client: Client,
  taskQueue: string,
  signal: AbortSignal,
  from?: string,
): Promise<string | undefined> {
  for (let after = from; ; ) {
    const page = await listUnfinishedOfAllApps(deps.db, { after, limit: pageSize, graceMs });
    let healed = 0;
    for (const notification of page) {
      if (signal.aborted) return undefined;
      try {
        if (await heal(deps, client, taskQueue, notification)) healed += 1;
      } catch (err) {
        if (isTemporalAway(err) || isTransientDatabaseError(err)) throw err;
        // What is wrong with one must not keep the others from being looked at.
        deps.log.warn({ err, notificationId: notification.id }, 'a workflow could not be looked after, later again');
      }
    }
    if (page.length < pageSize) return undefined;
    after = page.at(-1)!.id;
    if (healed === 0) return after;
  }
}

/** @returns whether there was something to do */
async function heal(
  deps: ActivityDeps,
  client: Client,
  taskQueue: string,
  notification: UnfinishedNotification,
): Promise<boolean> {
  const { id, state, isUnseen } = notification;
  const { status, hasTask } = await describe(client, id);
  // A workflow that has its turn before it sees the wake-up looks by itself; a signal would only make it one task more.
  if (status === 'RUNNING' && (!isUnseen || hasTask)) return false;
  const isGone = status === 'TERMINATED' || status === 'FAILED' || status === 'TIMED_OUT';
  if (state === 'sending' && isGone && !isUnseen) {
    const detail = `Its workflow ended as ${status} in Temporal. Resume goes on where it stopped.`;
    if (await haltNotificationOfAnyApp(deps.db, notification, { reason: 'workflow_terminated', detail })) {
      reconcilerFindings.inc({ kind: 'ended' });
      halts.inc({ of: 'notification', reason: 'workflow_terminated' });
      deps.log.warn({ notificationId: id, status }, 'workflow gone: notification halted');
    }
    return true;
  }
  const labels = labelsOf(await getNotificationOfAnyApp(deps.db, id));
  await client.withDeadline(Date.now() + deadlineMs, () =>
    client.workflow.signalWithStart(notificationWorkflowType, notificationStart(id, labels, taskQueue)),
  );
  reconcilerFindings.inc({ kind: status === 'RUNNING' ? 'unseen' : 'missing' });
  deps.log.info({ notificationId: id, state, workflow: status }, 'workflow woken by the reconciler');
  return true;
}

/** `hasTask`: a task of it waits for a worker, or a worker has it. */
async function describe(client: Client, notificationId: string): Promise<{ status: string; hasTask: boolean }> {
  try {
    const handle = client.workflow.getHandle(notificationWorkflowId(notificationId));
    const { status, raw } = await client.withDeadline(Date.now() + deadlineMs, () => handle.describe());
    return { status: status.name, hasTask: Boolean(raw.pendingWorkflowTask) };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return { status: 'NOT_FOUND', hasTask: false };
    throw error;
  }
}

/** Runs `reconcile` for as long as `signal` allows, one round at a time; a failed round is logged and tried again. */
export async function runReconciler(
  deps: ActivityDeps,
  client: Client,
  taskQueue: string,
  signal: AbortSignal,
): Promise<void> {
  let from: string | undefined;
  while (!signal.aborted) {
    try {
      await startMissingLanes(deps, client, taskQueue);
      await startAppDeletions(deps, client, taskQueue);
      from = await reconcile(deps, client, taskQueue, signal, from);
      reconcilerRounds.inc({ result: 'well' });
    } catch (error) {
      reconcilerRounds.inc({ result: 'failed' });
      deps.log.warn({ err: error }, 'reconciler round failed');
    }
    await pause(deps.config.reconcileIntervalMs, signal);
  }
}
