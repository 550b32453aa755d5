import { chmodSync, mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ensureFirstApiKey, insertApiKey } from '../db/api-keys.ts';
import { connect } from '../db/connect.ts';
import { migrate } from '../db/migrate.ts';
import { deliveryTaskQueue, notificationsTaskQueue } from '../domain/task-queues.ts';
import { startChild, waitUntilReady } from './child.ts';
import { namesCredentials, namesTemporal, temporalEnvironment, withoutSettings } from './environment.ts';
import { type LeashHolder, startLeash } from './leash-holder.ts';
import { projectRoot } from './paths.ts';
import { findFreePort } from './ports.ts';
import { startPostgres } from './postgres.ts';
import { isApiReady, isWorkerPolling } from './readiness.ts';
import { type LocalSimulator, startSimulator } from './simulator.ts';
import { lockState } from './state-lock.ts';
import { type Supervised, supervise } from './supervised.ts';
import { startTemporal } from './temporal.ts';
import { watchLogForErrors } from './watch-log.ts';

/** Ports on loopback that are tried first; another is chosen, and said, when one is taken. */
export interface StackPorts {
  api?: number;
  postgres?: number;
  temporal?: number;
  temporalUi?: number;
  simulatorControl?: number;
}

export interface StackOptions {
  /** Data and logs; made when missing. One stack at a time runs on it. */
  directory: string;
  /** The folder is removed at the end, even when this process is killed. Default: false. */
  isTemporary?: boolean;
  ports?: StackPorts;
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
  /** Told in one line what happens. Default: silent. */
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
  /** Undefined when real credentials are in use. */
  readonly simulator: LocalSimulator | undefined;
  readonly logDirectory: string;
  /** What a further Carillon program of this stack needs as its whole environment. */
  readonly env: NodeJS.ProcessEnv;
  /** Undefined for a part that is not embedded. */
  readonly processes: {
    readonly postgres: Supervised | undefined;
    readonly temporal: Supervised | undefined;
    readonly api: Supervised;
    /** In the order they were started. */
    readonly workers: readonly Supervised[];
  };
  /** Starts one more worker, ready when this returns. */
  addWorker(env?: Record<string, string>): Promise<Supervised>;
  /** In order: workers, API, simulator, Temporal, PostgreSQL. Safe to repeat. */
  stop(): Promise<void>;
}

const preferredPorts = { api: 8080, postgres: 5433, temporal: 7233, temporalUi: 8233 };

/**
 * Starts PostgreSQL, Temporal, the simulator, the API and workers, each once the one before is ready, each a process of its
 * own. What was started is stopped again when a later one fails.
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const leash = startLeash();
  const cleanUps: (() => Promise<void>)[] = [() => leash.end()];
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= (async () => {
      for (const cleanUp of cleanUps.reverse()) await cleanUp();
    })();
    return stopping;
  };
  const { signal } = options;
  const stopOnAbort = () => void stop();
  signal?.addEventListener('abort', stopOnAbort);
  try {
    return await startParts(options, leash, (cleanUp) => cleanUps.push(cleanUp), stop);
  } catch (error) {
    await stop();
    throw signal?.aborted ? signal.reason : error;
  }
}

async function startParts(
  options: StackOptions,
  leash: LeashHolder,
  onStop: (cleanUp: () => Promise<void>) => void,
  stop: () => Promise<void>,
): Promise<Stack> {
  const say = options.say ?? (() => undefined);
  const isKeptAlive = options.isKeptAlive ?? false;
  const outer = options.usesOuterParts ? process.env : {};
  const directory = path.resolve(options.directory);
  const logDirectory = path.join(directory, 'logs');
  const log = (name: string) => path.join(logDirectory, `${name}.log`);

  mkdirSync(logDirectory, { recursive: true });
  // PostgreSQL, as an unprivileged user, must be able to pass through.
  if (process.getuid?.() === 0) chmodSync(directory, 0o755);
  await lockState(leash, directory);
  if (options.isTemporary) leash.removeAtEnd(directory);

  const pickPort = async (name: string, preferred: number | undefined): Promise<number> => {
    const port = await findFreePort(preferred);
    if (preferred !== undefined && port !== preferred) say(`Port ${preferred} for ${name} is taken; using ${port}.`);
    return port;
  };
  const run = async (...[part]: Parameters<typeof supervise>): Promise<Supervised> => {
    options.signal?.throwIfAborted();
    const supervised = await supervise(part);
    onStop(() => supervised.stop());
    return supervised;
  };

  let databaseUrl = outer.DATABASE_URL;
  let postgres: Supervised | undefined;
  if (!databaseUrl) {
    say('Starting PostgreSQL …');
    const port = await pickPort('PostgreSQL', options.ports?.postgres ?? preferredPorts.postgres);
    const launch = async () => {
      const started = await startPostgres({
        dataDirectory: path.join(directory, 'postgres'),
        port,
        logFile: log('postgres'),
        leash,
      });
      databaseUrl = started.url;
      if (options.isTemporary && path.dirname(started.dataDirectory) !== directory) {
        leash.removeAtEnd(path.dirname(started.dataDirectory));
      }
      return started.child;
    };
    postgres = await run({ name: 'PostgreSQL', launch, isKeptAlive, say });
  }

  let temporal: Supervised | undefined;
  let temporalUiUrl: string | undefined;
  let temporalEnv: NodeJS.ProcessEnv = {};
  if (!namesTemporal(outer)) {
    say('Starting Temporal …');
    const port = await pickPort('Temporal', options.ports?.temporal ?? preferredPorts.temporal);
    const hasWebUi = options.hasWebUi ?? true;
    const uiPort = hasWebUi
      ? await pickPort("Temporal's Web UI", options.ports?.temporalUi ?? preferredPorts.temporalUi)
      : undefined;
    const launch = async () => {
      const started = await startTemporal({
        port,
        ...(uiPort !== undefined && { uiPort }),
        databaseFile: path.join(directory, 'temporal.sqlite'),
        logFile: log('temporal'),
        leash,
        say,
      });
      temporalUiUrl = started.uiUrl;
      temporalEnv = temporalEnvironment(started.address, started.namespace, directory);
      return started.child;
    };
    temporal = await run({ name: 'Temporal', launch, isKeptAlive, say });
  }

  let simulator: LocalSimulator | undefined;
  if (!namesCredentials(outer)) {
    say('Starting the provider simulator …');
    simulator = await startSimulator({
      directory: path.join(directory, 'simulator'),
      logFile: log('simulator'),
      leash,
      ...(options.ports?.simulatorControl !== undefined && { controlPort: options.ports.simulatorControl }),
    });
    onStop(() => simulator?.stop() ?? Promise.resolve());
  }

  say('Bringing the database up to date …');
  const apiKey = await prepareDatabase(databaseUrl!, options.apiKey ?? 'first');

  const apiPort = await pickPort('the API', options.ports?.api ?? preferredPorts.api);
  const base = options.usesOuterParts
    ? process.env
    : withoutSettings(process.env, ['TEMPORAL_', 'DATABASE_', 'APNS_', 'FCM_', 'CARILLON_']);
  const env: NodeJS.ProcessEnv = {
    ...base,
    ...temporalEnv,
    DATABASE_URL: databaseUrl,
    ...simulator?.env,
    ...options.env,
    HOST: options.env?.HOST ?? '127.0.0.1',
    PORT: String(apiPort),
  };
  const apiUrl = `http://127.0.0.1:${apiPort}`;
  const watch = (name: string, file: string) => {
    const end = watchLogForErrors(file, (message) => say(`[${name}] ${message}`));
    onStop(async () => end());
  };

  say('Starting the API …');
  const api = await run({
    name: 'API',
    launch: async () => {
      const child = await startChild({
        name: 'API',
        ...apiCommand(options.apiRuntime, apiPort),
        env,
        cwd: projectRoot,
        logFile: log('api'),
        leash,
      });
      await waitUntilReady(child, () => isApiReady(apiUrl), 30_000);
      return child;
    },
    isKeptAlive,
    say,
  });
  watch('API', api.logFile);

  const workers: Supervised[] = [];
  const addWorker = async (workerEnv: Record<string, string> = {}): Promise<Supervised> => {
    const number = workers.length + 1;
    const name = number === 1 ? 'worker' : `worker ${number}`;
    const wholeEnv = { ...env, ...workerEnv };
    const worker = await run({
      name,
      launch: async () => {
        const child = await startChild({
          name,
          command: process.execPath,
          args: ['activities/worker.ts'],
          env: wholeEnv,
          cwd: projectRoot,
          logFile: log(number === 1 ? 'worker' : `worker-${number}`),
          leash,
          stopGraceMs: 30_000,
        });
        await waitUntilReady(child, () => isWorkerPolling(wholeEnv, firstTaskQueue(wholeEnv), child.pid), 60_000);
        return child;
      },
      isKeptAlive,
      say,
    });
    workers.push(worker);
    watch(name, worker.logFile);
    return worker;
  };
  say('Starting the worker …');
  for (let i = 0; i < (options.workers ?? 1); i++) await addWorker();

  return {
    apiUrl,
    apiKey,
    databaseUrl: databaseUrl!,
    temporalAddress: env.TEMPORAL_ADDRESS ?? '(from the configuration file)',
    temporalNamespace: env.TEMPORAL_NAMESPACE ?? 'default',
    temporalUiUrl,
    simulator,
    logDirectory,
    env,
    processes: { postgres, temporal, api, workers },
    addWorker,
    stop,
  };
}

/** Migrates; returns the API key when one was made. */
async function prepareDatabase(databaseUrl: string, apiKey: 'first' | 'new'): Promise<string | undefined> {
  const { db } = connect(databaseUrl, { maxConnections: 2, applicationName: 'carillon-local' });
  try {
    await migrate(db);
    const first = await ensureFirstApiKey(db);
    if (first || apiKey === 'first') return first;
    const { id } = await db.selectFrom('apps').select('id').where('name', '=', 'default').executeTakeFirstOrThrow();
    return await insertApiKey(db, { appId: id, name: `local stack on ${os.hostname()}`, scopes: ['*'] });
  } finally {
    await db.destroy();
  }
}

function apiCommand(runtime: 'node' | 'deno' | undefined, port: number): { command: string; args: string[] } {
  if (runtime !== 'deno') return { command: process.execPath, args: ['api/serve.node.ts'] };
  const deno = path.join(projectRoot, 'node_modules', '.bin', 'deno');
  const permissions = ['--allow-net', '--allow-env', '--allow-read', '--allow-sys'];
  return { command: deno, args: ['serve', ...permissions, '--host=127.0.0.1', `--port=${port}`, 'api/serve.deno.ts'] };
}

/** A queue that a worker with these settings polls. */
function firstTaskQueue(env: NodeJS.ProcessEnv): string {
  const prefix = env.CARILLON_TASK_QUEUE_PREFIX ?? '';
  const roles = env.CARILLON_ROLES?.split(',').map((role) => role.trim()) ?? ['notifications'];
  if (roles.includes('notifications')) return notificationsTaskQueue(prefix);
  return deliveryTaskQueue(prefix, roles.includes('apns') ? 'apns' : 'fcm', false);
}
