import { randomUUID } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import type { NativeConnection } from '@temporalio/worker';
import { getTemporalAddress } from './environment.ts';

/** The part of the shared Temporal server that one test needs. */
export interface TestTemporal {
  readonly address: string;
  readonly namespace: 'default';
  readonly client: Client;
  /** Unique to this call: the workflows of one test meet no other test's workers. */
  readonly taskQueuePrefix: string;
  /** The connection that a worker needs; opened at the first call, then the same one. */
  openNativeConnection(): Promise<NativeConnection>;
  /** Closes the connections. Workers must have been drained before (`await run`). */
  close(): Promise<void>;
}

export async function connectTestTemporal(): Promise<TestTemporal> {
  const address = await getTemporalAddress();
  const connection = await Connection.connect({ address });
  let native: Promise<NativeConnection> | undefined;
  return {
    address,
    namespace: 'default',
    client: new Client({ connection, namespace: 'default' }),
    taskQueuePrefix: `test-${randomUUID()}-`,
    openNativeConnection() {
      native ??= openNativeConnection(address);
      return native;
    },
    async close() {
      await (await native)?.close();
      await connection.close();
    },
  };
}

/** The native core costs a second to load, and most tests do without. */
async function openNativeConnection(address: string): Promise<NativeConnection> {
  const worker = await import('@temporalio/worker');
  return worker.NativeConnection.connect({ address });
}
