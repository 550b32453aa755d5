import { Client, Connection } from '@temporalio/client';
import proto from '@temporalio/proto';
import { notificationWorkflowId } from '../domain/ids.ts';
import type { Stack } from '../local/stack.ts';

/** What one send made Temporal do. */
export interface TemporalWork {
  /** Workflow runs: the notification's own, each continuation, each batch. */
  executions: number;
  events: number;
  /**
   * Billable actions by Temporal Cloud's list (https://docs.temporal.io/cloud/actions), without heartbeats, which leave no event.
   */
  actions: number;
}

const { EventType } = proto.temporal.api.enums.v1;
/** Each of these events is one action, or the scheduling of one. */
const actionEvents = new Set<unknown>([
  EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
  EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
  EventType.EVENT_TYPE_TIMER_STARTED,
  EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
  EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
  // A local activity; no other marker is recorded.
  EventType.EVENT_TYPE_MARKER_RECORDED,
]);
/** A server's listing lags by a moment. */
const listingPatienceMs = 15_000;

/** Reads the histories of a send that has ended. */
export async function countTemporalWork(stack: Stack, notificationId: string): Promise<TemporalWork> {
  const connection = await Connection.connect({ address: stack.temporalAddress });
  try {
    const client = new Client({ connection, namespace: stack.temporalNamespace });
    const work: TemporalWork = { executions: 0, events: 0, actions: 0 };
    for (const { workflowId, runId } of await listEnded(client, notificationWorkflowId(notificationId))) {
      const { events } = await client.workflow.getHandle(workflowId, runId).fetchHistory();
      work.executions += 1;
      work.events += events?.length ?? 0;
      work.actions += events?.filter(({ eventType }) => actionEvents.has(eventType)).length ?? 0;
    }
    return work;
  } finally {
    await connection.close();
  }
}

async function listEnded(client: Client, workflowId: string): Promise<{ workflowId: string; runId: string }[]> {
  const deadline = Date.now() + listingPatienceMs;
  for (;;) {
    const found: { workflowId: string; runId: string }[] = [];
    let running = 0;
    for await (const execution of client.workflow.list({ query: `WorkflowId STARTS_WITH '${workflowId}'` })) {
      found.push({ workflowId: execution.workflowId, runId: execution.runId });
      if (execution.status.name === 'RUNNING') running += 1;
    }
    if ((found.length > 0 && running === 0) || Date.now() > deadline) return found;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
