import { Client, Connection, isGrpcServiceError, WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { appDeletionStart } from '../../domain/app-deletion.ts';
import { cutText } from '../../domain/cut-text.ts';
import { deleteAppWorkflowType, notificationWorkflowType } from '../../domain/ids.ts';
import type { Logger } from '../../domain/logger.ts';
import { labelsOf, notificationStart } from '../../domain/notification-start.ts';
import type { Environment } from '../../domain/settings.ts';
import { notificationsTaskQueue } from '../../domain/task-queues.ts';
import { traceStarts } from '../../telemetry/temporal-traces.ts';
import type { Tracing } from '../../telemetry/tracing.ts';
import type { NotificationWaker } from './waker.ts';

interface TemporalWakerOptions {
  /** `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, TLS and API key, as `@temporalio/envconfig` reads them. */
  env: Environment;
  taskQueuePrefix: string;
  /** How long one call may take before the change is left to the reconciler. */
  deadlineMs: number;
  log: Logger;
  /** Default: none. */
  tracing?: Tracing | undefined;
}

/** Opens no connection yet, and keeps one once it has. `close` before the process ends: its keep-alive would hold it. */
export function createTemporalWaker(options: TemporalWakerOptions): NotificationWaker & { close(): Promise<void> } {
  const { log, deadlineMs, tracing } = options;
  const { connectionOptions, namespace = 'default' } = loadClientConnectConfig({
    overrideEnvVars: setOnly(options.env),
  });
  const { address, tls, apiKey, metadata } = connectionOptions;
  const connection = Connection.lazy({
    ...(address !== undefined && { address }),
    ...(tls !== undefined && { tls }),
    ...(apiKey !== undefined && { apiKey }),
    ...(metadata !== undefined && { metadata }),
  });
  const client = new Client({
    ...{ connection, namespace },
    ...(tracing && { interceptors: { workflow: [traceStarts(tracing)] } }),
  });
  const taskQueue = notificationsTaskQueue(options.taskQueuePrefix);

  /** The change is in PostgreSQL already, so nothing is lost: the reconciler finds it. */
  async function tell(what: object, call: () => Promise<unknown>): Promise<'woken' | 'deferred'> {
    try {
      await client.withDeadline(Date.now() + deadlineMs, call);
      return 'woken';
    } catch (err) {
      log.warn({ err, ...what }, 'Temporal could not be reached: left to the reconciler');
      return 'deferred';
    }
  }

  return {
    wake(notification) {
      const start = notificationStart(notification.id, labelsOf(notification), taskQueue);
      return tell({ notificationId: notification.id }, () => startOrWake(client, start));
    },

    deleteApp(app) {
      const start = appDeletionStart(app, taskQueue);
      return tell({ appId: app.id }, () => client.workflow.start(deleteAppWorkflowType, start));
    },

    async check() {
      try {
        await client.withDeadline(Date.now() + deadlineMs, () => connection.workflowService.getSystemInfo({}));
        return 'reachable';
      } catch (error) {
        return isGrpcServiceError(error) ? cutText(`unreachable (${error.details})`, 200) : 'unreachable';
      }
    },

    close: () => connection.close(),
  };
}

/** A launch needs no signal, which Temporal Cloud bills like the start: the workflow's first step is to look. */
async function startOrWake(client: Client, start: ReturnType<typeof notificationStart>): Promise<void> {
  const { signal: _signal, ...startOnly } = start;
  try {
    await client.workflow.start(notificationWorkflowType, { ...startOnly, workflowIdConflictPolicy: 'FAIL' });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    await client.workflow.signalWithStart(notificationWorkflowType, start);
  }
}

function setOnly(env: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== ''),
  );
}
