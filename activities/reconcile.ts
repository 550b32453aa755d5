import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { haltNotification, listUnfinished } from '../db/notifications.ts';
import { pause } from '../db/retry-database.ts';
import { notificationWorkflowId, sendNotificationWorkflowType, wakeSignalName } from '../domain/ids.ts';
import type { ActivityDeps } from './activities.ts';

/** A change this young may still be on its way by the API's own signal. */
const graceMs = 3_000;
const maxPerRound = 200;
const deadlineMs = 5_000;

/**
 * One round of healing: every notification that should have a workflow is held against Temporal, by id. Missing or ended too
 * early: started; a change that nobody looked at: woken; terminated or failed: shown as `halted`, for `resume` to start again.
 * A repeat is harmless, and so are two workers that do this at once.
 */
export async function reconcile(deps: ActivityDeps, client: Client, taskQueue: string): Promise<void> {
  for (const row of await listUnfinished(deps.db, maxPerRound)) {
    if (row.ageMs < graceMs) continue;
    const needsWorkflow = row.state === 'scheduled' || row.state === 'sending' || row.state === 'cancelled';
    if (!needsWorkflow && !row.isUnseen) continue;
    const status = await describe(client, row.id);
    if (status === 'RUNNING' && !row.isUnseen) continue;
    if (
      row.state === 'sending' &&
      (status === 'TERMINATED' || status === 'FAILED' || status === 'TIMED_OUT') &&
      !row.isUnseen
    ) {
      const detail = `Its workflow ended as ${status} in Temporal. Resume goes on where it stopped.`;
      await haltNotification(deps.db, row.id, 'workflow_terminated', detail);
      deps.log.warn({ notificationId: row.id, status }, 'workflow gone: notification halted');
      continue;
    }
    await client.withDeadline(Date.now() + deadlineMs, () =>
      client.workflow.signalWithStart(sendNotificationWorkflowType, {
        workflowId: notificationWorkflowId(row.id),
        taskQueue,
        signal: wakeSignalName,
        args: [{ notificationId: row.id }],
        ...(row.title !== null && { staticSummary: row.title.slice(0, 200) }),
        memo: { notificationId: row.id, title: row.title, appId: row.appId },
      }),
    );
    deps.log.info({ notificationId: row.id, state: row.state, workflow: status }, 'workflow woken by the reconciler');
  }
}

async function describe(client: Client, notificationId: string): Promise<string> {
  try {
    const handle = client.workflow.getHandle(notificationWorkflowId(notificationId));
    const { status } = await client.withDeadline(Date.now() + deadlineMs, () => handle.describe());
    return status.name;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return 'NOT_FOUND';
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
  while (!signal.aborted) {
    await pause(deps.config.reconcileIntervalMs, signal);
    if (signal.aborted) return;
    try {
      await reconcile(deps, client, taskQueue);
    } catch (error) {
      deps.log.warn({ err: error }, 'reconciler round failed');
    }
  }
}
