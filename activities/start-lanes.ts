import { type Client, WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import { findLaneOfAnyApp, type Lane, listLanesOfAllApps } from '../db/lanes.ts';
import { laneWorkflowId, laneWorkflowType } from '../domain/ids.ts';
import type { LaneWorkflowInput } from '../domain/lane.ts';
import { laneTaskQueue, taskQueuePrefix } from '../domain/task-queues.ts';
import { reconcilerFindings } from '../telemetry/reconciler-metrics.ts';
import type { ActivityDeps } from './activities.ts';

/** A lane that no worker has shown itself at for so long has none, or waits for one. */
const unseenMs = 12_000;
const deadlineMs = 5_000;
/** Between two looks at a lane whose worker is another process, however much comes. */
const lookAgainMs = 200;

/** Starts the workflow of every lane with entries that nobody seems to send; where it runs already, nothing happens. */
export async function startMissingLanes(deps: ActivityDeps, client: Client, taskQueue: string): Promise<void> {
  for (const lane of await listLanesOfAllApps(deps.db)) {
    if (!lane.hasEntries || lane.msUnseen <= unseenMs) continue;
    if (await startLane(deps, client, taskQueue, lane)) reconcilerFindings.inc({ kind: 'lane' });
  }
}

/**
 * To be called when something was accepted for a lane that this process does not have: the same for one, at once. Where its workflow is
 * just about to end, it is tried once more; a signal to it would be a task for each lane that only waits for its turn.
 */
export function laneWaker(deps: ActivityDeps, client: Client, taskQueue: string): (laneId: number) => void {
  /** Lanes that were looked at a moment ago; true: something came since. */
  const looked = new Map<number, boolean>();

  /** @returns true where its workflow runs, and nobody has the lane */
  async function wake(laneId: number): Promise<boolean> {
    const lane = await findLaneOfAnyApp(deps.db, laneId);
    if (lane === undefined || lane.msUnseen <= unseenMs) return false;
    return !(await startLane(deps, client, taskQueue, lane));
  }

  function ring(laneId: number, isAgain = false): void {
    if (looked.has(laneId)) {
      looked.set(laneId, true);
      return;
    }
    looked.set(laneId, false);
    const waking = wake(laneId).catch((err: unknown) => {
      deps.log.warn({ err, laneId }, 'a lane was not woken, later again');
      return false;
    });
    setTimeout(async () => {
      const mayBeEnding = (await waking) && !isAgain;
      const isRung = looked.get(laneId);
      looked.delete(laneId);
      if (isRung || mayBeEnding) ring(laneId, !isRung);
    }, lookAgainMs).unref();
  }
  return ring;
}

/** @returns false where it runs */
async function startLane({ log }: ActivityDeps, client: Client, taskQueue: string, lane: Lane): Promise<boolean> {
  const { id: laneId, appId, provider, number } = lane;
  const prefix = taskQueuePrefix(taskQueue);
  const input: LaneWorkflowInput = {
    laneId,
    summary: `app ${appId} · ${provider} · lane ${number}`,
    taskQueue: laneTaskQueue(prefix, provider),
  };
  try {
    await client.withDeadline(Date.now() + deadlineMs, () =>
      client.workflow.start(laneWorkflowType, {
        ...{ workflowId: laneWorkflowId(prefix, lane), taskQueue, args: [input] },
        staticSummary: input.summary,
      }),
    );
    log.info({ laneId, appId, provider, lane: number }, 'lane started');
    return true;
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) return false;
    throw error;
  }
}
