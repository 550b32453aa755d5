import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { takeIdleWebhooksOfAllApps } from '../../db/webhook-deliveries.ts';
import { collectFeedOfAllApps } from '../../db/webhook-feed.ts';
import { wakeSignalName, webhookWorkflowId, webhookWorkflowType } from '../../domain/ids.ts';
import { pause } from '../../domain/pause.ts';
import type { WebhookWorkflowInput } from '../../domain/webhook.ts';
import type { ActivityDeps } from '../activities.ts';

/** Between two looks at the outbox. */
const lookMs = 1_000;
/** Between two looks for webhooks that nobody delivers to. */
const healMs = 5_000;
const deadlineMs = 5_000;

type CollectorDeps = Pick<ActivityDeps, 'db' | 'log'>;

/** Makes deliveries of what is in the outbox, and sees to it that somebody delivers them, for as long as `signal` allows. */
export async function runCollector(
  deps: CollectorDeps,
  client: Client,
  taskQueue: string,
  signal: AbortSignal,
): Promise<void> {
  let healAt = 0;
  while (!signal.aborted) {
    try {
      await collectWebhooks(deps, client, taskQueue, signal);
      if (performance.now() >= healAt) {
        await wakeWebhooks(deps, client, taskQueue);
        healAt = performance.now() + healMs;
      }
    } catch (err) {
      deps.log.warn({ err }, 'webhooks were not looked after, later again');
    }
    await pause(lookMs, signal);
  }
}

/** Empties the outbox. Another worker that does it already is left alone. */
async function collectWebhooks(
  deps: CollectorDeps,
  client: Client,
  taskQueue: string,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const collected = await collectFeedOfAllApps(deps.db);
    if (collected === undefined || collected.changes === 0) return;
    const { webhookIds, deletedIds } = collected;
    if (webhookIds.length > 0) await wakeWebhooks(deps, client, taskQueue, webhookIds);
    for (const id of deletedIds) await wakeToEnd(client, id);
  }
}

/**
 * Starts or wakes the workflow of each webhook that has something due and nobody at work; of these alone, or of all.
 * @internal
 */
export async function wakeWebhooks(
  { db }: CollectorDeps,
  client: Client,
  taskQueue: string,
  ids?: string[],
): Promise<void> {
  for (const { id, url } of await takeIdleWebhooksOfAllApps(db, ids)) {
    const input: WebhookWorkflowInput = { webhookId: id, host: new URL(url).host };
    await client.withDeadline(Date.now() + deadlineMs, () =>
      client.workflow.signalWithStart(webhookWorkflowType, {
        ...{ workflowId: webhookWorkflowId(id), taskQueue, signal: wakeSignalName, args: [input] },
        ...{ workflowIdReusePolicy: 'ALLOW_DUPLICATE', workflowIdConflictPolicy: 'USE_EXISTING' },
        staticSummary: `webhook ${input.host}`,
      }),
    );
  }
}

async function wakeToEnd(client: Client, id: string): Promise<void> {
  try {
    const handle = client.workflow.getHandle(webhookWorkflowId(id));
    await client.withDeadline(Date.now() + deadlineMs, () => handle.signal(wakeSignalName));
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
  }
}
