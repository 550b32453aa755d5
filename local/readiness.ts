import { Client, Connection } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';

/** Whether the API answers and can serve requests. */
export async function isApiReady(url: string): Promise<boolean> {
  const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2_000) });
  await answer.body?.cancel();
  return answer.ok;
}

/**
 * Asks Temporal whether the process polls one of the queues: the one sign of a working worker that needs no port on it. Workers
 * name themselves `<process id>@<host>` unless told otherwise.
 */
export async function isWorkerPolling(env: NodeJS.ProcessEnv, taskQueue: string, pid: number): Promise<boolean> {
  const { connectionOptions, namespace = 'default' } = loadClientConnectConfig({ overrideEnvVars: definedOnly(env) });
  const connection = await Connection.connect({ ...connectionOptions, connectTimeout: 2_000 });
  try {
    const client = new Client({ connection, namespace });
    for (const taskQueueType of [1, 2]) {
      const { pollers } = await client.withDeadline(Date.now() + 2_000, () =>
        client.workflowService.describeTaskQueue({ namespace, taskQueue: { name: taskQueue }, taskQueueType }),
      );
      if (pollers?.some((poller) => poller.identity?.startsWith(`${pid}@`))) return true;
    }
    return false;
  } finally {
    await connection.close();
  }
}

function definedOnly(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined));
}
