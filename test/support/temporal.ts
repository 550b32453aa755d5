import { randomUUID } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import type { NativeConnection } from '@temporalio/worker';
import { getTemporalAddress } from './environment.ts';

/** What one test needs of the shared Temporal server. */
export interface TestTemporal {
  readonly address: string;
  readonly namespace: 'default';
  readonly client: Client;
  /** Unique to this call: what a test starts below it meets no other test's workers. */
  readonly taskQueuePrefix: string;
  /** The connection a worker wants; opened at the first call, the same one after that. */
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
