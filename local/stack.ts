import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { localDatabaseFile } from '../admin/local-files.ts';
import { ensureFirstApiKey, insertApiKey } from '../db/api-keys.ts';
import { findAppByName } from '../db/apps.ts';
import { connect } from '../db/connect.ts';
import { migrate } from '../db/migrate.ts';
import { defaultAppName } from '../domain/app.ts';
import { appScopes } from '../domain/scopes.ts';
import { withoutSettings } from './environment.ts';
import { startLeash } from './leash-holder.ts';
import { keptMasterKeys } from './master-keys.ts';
import { findFreePort } from './ports.ts';
import type { LocalSimulator } from './simulator.ts';
import { openStackContext, type StackContext, type StackPorts } from './stack-context.ts';
import {
  bundleWorkflows,
  startApi,
  startDatabase,
  startProviders,
  startWorker,
  startWorkflowEngine,
} from './stack-parts.ts';
import type { Supervised } from './supervised.ts';

export interface StackOptions {
  /** Data and logs; made when missing. One stack at a time may use it. */
  directory: string;
  /** The folder is removed at the end, even when this process is killed. Default: false. */
  isTemporary?: boolean;
  /** Ports to try first; `free`: any. Default: 8080 for the API, the usual ones for the rest. */
  ports?: StackPorts | 'free';
  /** Settings for the API and the workers, above those of this process. */
  env?: Record<string, string>;
  /** Honour DATABASE_URL, TEMPORAL_ADDRESS … and provider credentials of this process. Default: false: all parts are embedded. */
  usesOuterParts?: boolean;
  /** Default: true. */
  hasWebUi?: boolean;
  /** What serves the API. Default: node. */
  apiRuntime?: 'node' | 'deno';
  /** Worker processes, each with all roles unless `env` says otherwise. Default: 1. */
  workers?: number;
  /** Processes that end unasked are started again. Default: false. */
  isKeptAlive?: boolean;
  /** `first`: an API key is made only when there is none yet. `new`: always. Default: first. */
  apiKey?: 'first' | 'new';
  /** Aborting stops the stack, also while it starts. */
  signal?: AbortSignal;
  /** Called with one line for each event. Default: silent. */
  say?: (line: string) => void;
}

/** A running Carillon with everything it needs. */
export interface Stack {
  /** Without a slash at the end. */
  readonly apiUrl: string;
  /** The plain key when one was made by this start. */
  readonly apiKey: string | undefined;
  readonly databaseUrl: string;
  readonly temporalAddress: string;
  readonly temporalNamespace: string;
  /** Undefined without a Web UI of its own. */
  readonly temporalUiUrl: string | undefined;
  /** Of the API, then of the workers in the order of their start. */
  readonly metricsUrls: readonly string[];
  /** Undefined when real credentials are in use. */
  readonly simulator: LocalSimulator | undefined;
  readonly logDirectory: string;
  /** What a further Carillon program of this stack needs as its whole environment. */
  readonly env: NodeJS.ProcessEnv;
  /** Undefined for a part that is not embedded. */
  readonly processes: {
    readonly postgres: Supervised | undefined;
    readonly temporal: Supervised | undefined;
    readonly simulator: Supervised | undefined;
    readonly api: Supervised;
    /** In the order they became ready. */
    readonly workers: readonly Supervised[];
  };
  /** Starts one more worker, ready when this returns. */
  addWorker(env?: Record<string, string>): Promise<Supervised>;
  /** In order: workers, API, simulator, Temporal, PostgreSQL. Safe to repeat. */
  stop(): Promise<void>;
}

/** The first that is tried: the API's; those of workers follow. */
const firstMetricsPort = 9_464;

/**
 * Starts PostgreSQL, Temporal and the simulator, then, once these are ready, the API and workers, each a process of its own. When
 * one fails, all are stopped again.
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const context = await openStackContext(options, startLeash());
  const stopOnAbort = () => void context.stop();
  options.signal?.addEventListener('abort', stopOnAbort);
  try {
    return await startParts(options, context);
  } catch (error) {
    await context.stop();
    throw options.signal?.aborted ? options.signal.reason : error;
  }
}

async function startParts(options: StackOptions, context: StackContext): Promise<Stack> {
  const outer = options.usesOuterParts ? process.env : {};
  context.say('Starting PostgreSQL, Temporal and the provider simulator …');
  const [database, engine, providers, workflowBundle] = await all([
    startDatabase(context, outer),
    startWorkflowEngine(context, outer, options.hasWebUi ?? true),
    startProviders(context, outer),
    outer.CARILLON_WORKFLOW_BUNDLE ?? bundleWorkflows(context),
  ]);
  const apiKey = await prepareDatabase(database.url, options.apiKey ?? 'first');
  sayDatabase(context, database.url);

  context.say('Starting the API and the worker …');
  const apiPort = await context.pickPort('api');
  const env: NodeJS.ProcessEnv = {
    ...(options.usesOuterParts ? process.env : withoutSettings(process.env, ownPrefixes)),
    ...engine.env,
    DATABASE_URL: database.url,
    CARILLON_MASTER_KEYS: outer.CARILLON_MASTER_KEYS || keptMasterKeys(context.directory),
    ...providers?.simulator.env,
    CARILLON_WORKFLOW_BUNDLE: workflowBundle,
    ...options.env,
    HOST: '127.0.0.1',
    PORT: String(apiPort),
    // Each process has its own.
    CARILLON_METRICS_PORT: '',
  };
  const metricsUrls: string[] = [];
  const withMetrics = async (own: NodeJS.ProcessEnv): Promise<NodeJS.ProcessEnv> => {
    const n = metricsUrls.push('') - 1;
    const port = await findFreePort(options.ports === 'free' ? undefined : firstMetricsPort + n);
    metricsUrls[n] = `http://127.0.0.1:${port}/metrics`;
    return { ...own, CARILLON_METRICS_HOST: '127.0.0.1', CARILLON_METRICS_PORT: String(port) };
  };
  const apiEnv = await withMetrics(env);
  const workers: Supervised[] = [];
  let workersStarted = 0;
  const addWorker = async (more: Record<string, string> = {}): Promise<Supervised> => {
    const worker = await startWorker(context, ++workersStarted, { ...(await withMetrics(env)), ...more });
    workers.push(worker);
    return worker;
  };
  const [api] = await all([
    startApi(context, apiEnv, apiPort, options.apiRuntime ?? 'node'),
    ...Array.from({ length: options.workers ?? 1 }, () => addWorker()),
  ]);

  return {
    apiUrl: `http://127.0.0.1:${apiPort}`,
    apiKey,
    databaseUrl: database.url,
    temporalAddress: env.TEMPORAL_ADDRESS ?? '(from the configuration file)',
    temporalNamespace: env.TEMPORAL_NAMESPACE ?? 'default',
    temporalUiUrl: engine.uiUrl,
    metricsUrls,
    simulator: providers?.simulator,
    logDirectory: context.logDirectory,
    env,
    processes: { postgres: database.process, temporal: engine.process, simulator: providers?.process, api, workers },
    addWorker,
    stop: () => context.stop(),
  };
}

const ownPrefixes = ['TEMPORAL_', 'DATABASE_', 'APNS_', 'FCM_', 'CARILLON_'];

/** Like `Promise.all`, but waits for every start to end before the first failure is thrown, so that all can be stopped. */
async function all<T extends readonly unknown[]>(starts: { [K in keyof T]: T[K] | Promise<T[K]> }): Promise<T> {
  await Promise.allSettled(starts);
  return (await Promise.all(starts)) as unknown as T;
}

/** For `npm run admin`, which looks into the folder of `npm start`. */
function sayDatabase(context: StackContext, databaseUrl: string): void {
  const file = path.join(context.directory, path.basename(localDatabaseFile));
  writeFileSync(file, databaseUrl, { mode: 0o600 });
  context.onStop('postgres', async () => rmSync(file, { force: true }));
}

/** Migrates; returns the API key when one was made. */
async function prepareDatabase(databaseUrl: string, apiKey: 'first' | 'new'): Promise<string | undefined> {
  const { db } = connect(databaseUrl, { maxConnections: 2, applicationName: 'carillon-local', statementTimeoutMs: 0 });
  try {
    await migrate(db);
    const first = await ensureFirstApiKey(db);
    if (first || apiKey === 'first') return first;
    const app = await findAppByName(db, defaultAppName);
    return await insertApiKey(db, { appId: app!.id, name: 'local stack', scopes: appScopes });
  } finally {
    await db.destroy();
  }
}
