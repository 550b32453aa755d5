import { Connection } from '@temporalio/client';
import { type Child, startChild, waitUntilReady } from './child.ts';
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
  /** Told when the program has to be fetched first. */
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

/** Starts the Temporal dev server and waits until its namespace answers. */
export async function startTemporal(options: LocalTemporalOptions): Promise<LocalTemporal> {
  const program = await findTemporalCli(options.say);
  const address = `127.0.0.1:${options.port}`;
  // The ports of the HTTP API and of the metrics are picked by the server without a guard against two servers starting at once.
  const [httpPort, metricsPort] = [await findFreePort(), await findFreePort()];
  const args = ['server', 'start-dev', '--ip', '127.0.0.1', '--port', String(options.port), '--log-level', 'warn'];
  args.push('--http-port', String(httpPort), '--metrics-port', String(metricsPort));
  args.push(...(options.uiPort === undefined ? ['--headless'] : ['--ui-port', String(options.uiPort)]));
  if (options.databaseFile) args.push('--db-filename', options.databaseFile);
  for (const [key, value] of Object.entries(options.dynamicConfig ?? {})) {
    args.push('--dynamic-config-value', `${key}=${value}`);
  }
  const child = await startChild({
    name: 'Temporal',
    command: program,
    args,
    env: serverEnvironment(),
    logFile: options.logFile,
    leash: options.leash,
    stopGraceMs: 10_000,
  });
  await waitUntilReady(child, () => isServing(address), 60_000);
  return {
    address,
    namespace: 'default',
    uiUrl: options.uiPort === undefined ? undefined : `http://127.0.0.1:${options.uiPort}`,
    child,
    stop: () => child.stop(),
  };
}

/** TEMPORAL_… settings of the shell are meant for clients; some of them the server's command would read as its own. */
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
