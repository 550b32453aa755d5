import { type Client, WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import { type Lane, listLanesOfAllApps } from '../db/lanes.ts';
import { laneWorkflowId, laneWorkflowType } from '../domain/ids.ts';
import type { LaneWorkflowInput } from '../domain/lane.ts';
import { laneTaskQueue, taskQueuePrefix } from '../domain/task-queues.ts';
import type { ActivityDeps } from './activities.ts';

/** A lane that no worker has shown itself at for so long has none, or waits for one. */
const unseenMs = 12_000;
const deadlineMs = 5_000;

/** Starts the workflow of every lane that nobody seems to send; where it runs already, nothing happens. */
export async function startMissingLanes(deps: ActivityDeps, client: Client, taskQueue: string): Promise<void> {
  for (const lane of await listLanesOfAllApps(deps.db)) {
    if (lane.msUnseen > unseenMs) await startLane(deps, client, taskQueue, lane);
  }
}

async function startLane({ log }: ActivityDeps, client: Client, taskQueue: string, lane: Lane): Promise<void> {
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
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
  }
}
