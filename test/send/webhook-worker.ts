import { Worker } from '@temporalio/worker';
import { type ActivityDeps, createActivities } from '../../activities/activities.ts';
import { WebhookSender } from '../../activities/webhooks/webhook-sender.ts';
import { webhookTaskQueue } from '../../domain/task-queues.ts';
import { parseNetwork } from '../../domain/webhook-address.ts';
import { masterKeys } from '../webhooks/harness.ts';
import type { SendBench } from './harness.ts';

/** The part of a worker that delivers webhooks, to this machine too. @returns a function that stops it, as by SIGTERM */
export async function startWebhookWorker(
  { temporal }: Pick<SendBench, 'temporal'>,
  deps: ActivityDeps,
): Promise<() => Promise<void>> {
  const webhooks = new WebhookSender({ masterKeys, places: { allowedNetworks: [parseNetwork('127.0.0.0/8')] } });
  const worker = await Worker.create({
    connection: await temporal.openNativeConnection(),
    namespace: temporal.namespace,
    activities: createActivities({ ...deps, webhooks, webhookLingerMs: 0 }),
    taskQueue: webhookTaskQueue(temporal.taskQueuePrefix),
    maxHeartbeatThrottleInterval: 200,
  });
  const ended = worker.run();
  return async () => {
    worker.shutdown();
    await ended;
    await webhooks.close();
  };
}
