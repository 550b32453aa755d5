import {
  ActivityCancellationType,
  continueAsNew,
  proxyActivities,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/activities.ts';
import { type LaneWorkflowInput, laneHeartbeatTimeoutMs } from '../domain/lane.ts';

/** Keeps one worker at the lane for as long as anything comes. What the lane does is told by the heartbeats of its activity. */
export async function laneWorkflow(input: LaneWorkflowInput): Promise<void> {
  const { laneId, summary, taskQueue } = input;
  const { keepLane } = proxyActivities<Activities>({
    taskQueue,
    summary,
    startToCloseTimeout: '2h',
    heartbeatTimeout: laneHeartbeatTimeoutMs,
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: '100ms', backoffCoefficient: 2, maximumInterval: '1s' },
  });
  setCurrentDetails(
    `**${summary}**\n\nRate, what waits and what stops it: Pending Activities, heartbeat details. Waits for a worker of queue ${taskQueue} otherwise.`,
  );
  do {
    const { reason } = await keepLane({ laneId });
    if (reason === 'gone' || reason === 'idle') return;
  } while (!workflowInfo().continueAsNewSuggested);
  await continueAsNew<typeof laneWorkflow>(input);
}
