import { Connection } from '@temporalio/client';
import { type Child, startReadyChild } from './child.ts';
import type { LeashHolder } from './leash-holder.ts';
import { findFreePort } from './ports.ts';
import { findTemporalCli } from './temporal-cli.ts';

export interface LocalTemporalOptions {
  /** gRPC port on loopback. */
  port: number;
  /** Port of the Web UI on loopback; without it there is no Web UI. */
  uiPort?: number;
  /** SQLite file that keeps workflows between starts; without it they live in memory. */
  databaseFile?: string;
  logFile: string;
  leash: LeashHolder;
  /** Temporal's dynamic configuration: key to JSON value, for example `{ 'limit.historyCount.suggestContinueAsNew': '100' }`. */
  dynamicConfig?: Record<string, string>;
  /** Called when the program has to be fetched first. */
  say?: (line: string) => void;
}

export interface LocalTemporal {
  /** `host:port`, as TEMPORAL_ADDRESS wants it. */
  readonly address: string;
  readonly namespace: 'default';
  readonly uiUrl: string | undefined;
  readonly child: Child;
  stop(): Promise<void>;
}

const startAttempts = 3;
/** By default a task queue has four, of which each hands out its own tasks in order: what was launched first would not be sent first. */
const onePartition = { 'matching.numTaskqueueReadPartitions': '1', 'matching.numTaskqueueWritePartitions': '1' };

/**
 * Starts the Temporal dev server and waits until its namespace answers. The server picks ports for its inner services without
 * holding them, and dies when another program takes one first; it is then started again.
 */
export async function startTemporal(options: LocalTemporalOptions): Promise<LocalTemporal> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startTemporalOnce(options);
    } catch (error) {
      const isPortTaken = error instanceof Error && error.message.includes('address already in use');
      if (!isPortTaken || attempt === startAttempts) throw error;
    }
  }
}

async function startTemporalOnce(options: LocalTemporalOptions): Promise<LocalTemporal> {
  const program = await findTemporalCli(options.say);
  const address = `127.0.0.1:${options.port}`;
  const [httpPort, metricsPort] = [await findFreePort(), await findFreePort()];
  const args = ['server', 'start-dev', '--ip', '127.0.0.1', '--port', String(options.port), '--log-level', 'warn'];
  args.push('--http-port', String(httpPort), '--metrics-port', String(metricsPort));
  args.push(...(options.uiPort === undefined ? ['--headless'] : ['--ui-port', String(options.uiPort)]));
  if (options.databaseFile) args.push('--db-filename', options.databaseFile);
  for (const [key, value] of Object.entries({ ...onePartition, ...options.dynamicConfig })) {
    args.push('--dynamic-config-value', `${key}=${value}`);
  }
  const child = await startReadyChild(
    {
      name: 'Temporal',
      command: program,
      args,
      env: serverEnvironment(),
      logFile: options.logFile,
      leash: options.leash,
      stopGraceMs: 10_000,
    },
    () => isServing(address),
    60_000,
  );
  return {
    address,
    namespace: 'default',
    uiUrl: options.uiPort === undefined ? undefined : `http://127.0.0.1:${options.uiPort}`,
    child,
    stop: () => child.stop(),
  };
}

/** TEMPORAL_… settings of the shell are meant for clients; the server's command would read some of them as its own. */
function serverEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TEMPORAL_')));
}

async function isServing(address: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: 1_000 });
  try {
    await connection.withDeadline(Date.now() + 2_000, () =>
      connection.workflowService.describeNamespace({ namespace: 'default' }),
    );
    return true;
  } finally {
    await connection.close();
  }
}
