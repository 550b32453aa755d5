import {
  ActivityCancellationType,
  continueAsNew,
  defineSignal,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/activities.ts';
import { ringSignalName } from '../domain/ids.ts';
import { type LaneWorkflowInput, laneHeartbeatTimeoutMs } from '../domain/lane.ts';

const ringSignal = defineSignal(ringSignalName);

/**
 * Keeps one worker at the lane for as long as anything comes. What the lane does is told by the heartbeats of its activity. A signal that
 * comes while the workflow ends keeps Temporal from ending it.
 */
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
  let isRung = false;
  setHandler(ringSignal, () => {
    isRung = true;
  });
  do {
    isRung = false;
    const { reason } = await keepLane({ laneId });
    if (reason === 'gone' || (reason === 'idle' && !isRung)) return;
  } while (!workflowInfo().continueAsNewSuggested);
  await continueAsNew<typeof laneWorkflow>(input);
}
