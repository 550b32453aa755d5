import {
  ActivityCancellationType,
  allHandlersFinished,
  condition,
  continueAsNew,
  defineSignal,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/activities.ts';
import { wakeSignalName } from '../domain/ids.ts';
import { taskQueuePrefix, webhookTaskQueue } from '../domain/task-queues.ts';
import type { WebhookStep, WebhookWorkflowInput } from '../domain/webhook.ts';
import { count, shorten } from './details.ts';

const wakeSignal = defineSignal(wakeSignalName);

/**
 * Delivers to a webhook for as long as anything waits for it, over days where its receiver is down. PostgreSQL says what is due and when; a
 * signal that carries nothing wakes it to look.
 */
export async function webhookWorkflow(input: WebhookWorkflowInput): Promise<void> {
  let isWoken = false;
  setHandler(wakeSignal, () => {
    isWoken = true;
  });
  const { deliverWebhooks } = proxyActivities<Activities>({
    taskQueue: webhookTaskQueue(taskQueuePrefix(workflowInfo().taskQueue)),
    summary: shorten(`deliver to ${input.host}`),
    startToCloseTimeout: '10m',
    heartbeatTimeout: '10s',
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
  });
  for (;;) {
    isWoken = false;
    const step = await deliverWebhooks(input);
    setCurrentDetails(describe(input, step));
    const isOver = step.kind === 'idle' || step.kind === 'disabled' || step.kind === 'gone';
    // A signal that came meanwhile is seen here: the server refuses to close a workflow behind its back.
    if (isOver && !isWoken) return;
    if (!isOver && step.waitMs > 0) {
      await condition(() => isWoken, step.waitMs, { summary: shorten(`next try: ${input.host}`) });
    }
    if (workflowInfo().continueAsNewSuggested) {
      await condition(allHandlersFinished);
      await continueAsNew<typeof webhookWorkflow>(input);
    }
  }
}

const headlines: Record<WebhookStep['kind'], string> = {
  idle: 'nothing is pending',
  waiting: 'waits for the next try',
  stopped: 'delivers',
  disabled: 'disabled',
  gone: 'deleted',
};

function describe(
  { host }: WebhookWorkflowInput,
  { kind, pending, waitMs, failingSince, lastError }: WebhookStep,
): string {
  const lines = [`**Webhook ${host}: ${headlines[kind]}**`, '', `- pending: ${count(pending)}`];
  if (failingSince !== undefined) lines.push(`- failing since: ${failingSince}`);
  if (lastError !== undefined) lines.push(`- last error: ${lastError}`);
  if (kind === 'waiting') lines.push(`- next try: ${new Date(Date.now() + waitMs).toISOString()}`);
  return [...lines, '', `As of ${new Date().toISOString()}.`].join('\n');
}
