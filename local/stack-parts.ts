import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { providerNames } from '../domain/device.ts';
import { readSettings } from '../domain/settings.ts';
import { deliveryTaskQueue, laneTaskQueue, notificationsTaskQueue, workerRoles } from '../domain/task-queues.ts';
import packageJson from '../package.json' with { type: 'json' };
import { startReadyChild } from './child.ts';
import { namesCredentials, namesTemporal, temporalEnvironment } from './environment.ts';
import { projectRoot } from './paths.ts';
import { startPostgres } from './postgres.ts';
import { isApiReady, isWorkerPolling } from './readiness.ts';
import { type LocalSimulator, prepareSimulator } from './simulator.ts';
import type { StackContext } from './stack-context.ts';
import type { Supervised } from './supervised.ts';
import { startTemporal } from './temporal.ts';
import { watchLogForErrors } from './watch-log.ts';

type Environment = NodeJS.ProcessEnv;

/** PostgreSQL, unless `outer` has a DATABASE_URL. */
export async function startDatabase(
  context: StackContext,
  outer: Environment,
): Promise<{ url: string; process: Supervised | undefined }> {
  if (outer.DATABASE_URL) return { url: outer.DATABASE_URL, process: undefined };
  const port = await context.pickPort('postgres');
  let url = '';
  const launch = async () => {
    const postgres = await startPostgres({
      dataDirectory: path.join(context.directory, 'postgres'),
      port,
      logFile: context.logFile('postgres'),
      leash: context.leash,
    });
    const dataFolder = path.dirname(postgres.dataDirectory);
    if (context.isTemporary && dataFolder !== context.directory) context.leash.removeAtEnd(dataFolder);
    url = postgres.url;
    return postgres.child;
  };
  const process = await context.run('postgres', { name: 'PostgreSQL', launch });
  return { url, process };
}

/** Temporal, unless `outer` names one. `env` leads clients to it. */
export async function startWorkflowEngine(
  context: StackContext,
  outer: Environment,
  hasWebUi: boolean,
): Promise<{ env: Environment; uiUrl: string | undefined; process: Supervised | undefined }> {
  if (namesTemporal(outer)) return { env: {}, uiUrl: undefined, process: undefined };
  const port = await context.pickPort('temporal');
  const uiPort = hasWebUi ? await context.pickPort('temporalUi') : undefined;
  let env: Environment = {};
  const launch = async () => {
    const temporal = await startTemporal({
      port,
      ...(uiPort !== undefined && { uiPort }),
      databaseFile: path.join(context.directory, 'temporal.sqlite'),
      logFile: context.logFile('temporal'),
      leash: context.leash,
      say: context.say,
    });
    env = temporalEnvironment(temporal.address, temporal.namespace, context.directory);
    return temporal.child;
  };
  const process = await context.run('temporal', { name: 'Temporal', launch });
  return { env, uiUrl: uiPort === undefined ? undefined : `http://127.0.0.1:${uiPort}`, process };
}

/** The simulator, unless `outer` has credentials of a real provider. */
export async function startProviders(
  context: StackContext,
  outer: Environment,
): Promise<{ simulator: LocalSimulator; process: Supervised } | undefined> {
  if (namesCredentials(outer)) return undefined;
  const { launch, simulator } = await prepareSimulator({
    directory: path.join(context.directory, 'simulator'),
    logFile: context.logFile('simulator'),
    leash: context.leash,
  });
  const process = await context.run('simulator', { name: 'simulator', launch });
  return { simulator: simulator(), process };
}

export async function startApi(
  context: StackContext,
  env: Environment,
  port: number,
  runtime: 'node' | 'deno',
): Promise<Supervised> {
  const logFile = context.logFile('api');
  const options = { name: 'API', ...apiCommand(runtime, port), env, cwd: projectRoot, logFile, leash: context.leash };
  const launch = () => startReadyChild(options, () => isApiReady(`http://127.0.0.1:${port}`), 30_000);
  watchErrors(context, 'API', logFile);
  return context.run('api', { name: 'API', launch });
}

/**
 * The workflow bundle of all workers of the stack, made once: each worker would take seconds and 100 MB to make it. @returns the
 * file
 */
export async function bundleWorkflows(context: StackContext): Promise<string> {
  const file = path.join(context.directory, 'workflow-bundle.js');
  await promisify(execFile)(process.execPath, ['workflows/build.ts', file], { cwd: projectRoot, timeout: 60_000 });
  return file;
}

/** The arguments of `npm run start:worker`: its limits for V8's heap apply to what is run and measured here. */
export const workerArguments = packageJson.scripts['start:worker'].split(' ').slice(2);

/** @param number 1 for the first worker; names it and its log */
export async function startWorker(context: StackContext, number: number, env: Environment): Promise<Supervised> {
  const name = number === 1 ? 'worker' : `worker ${number}`;
  const options = {
    name,
    command: process.execPath,
    args: workerArguments,
    // As in the image.
    env: { MALLOC_ARENA_MAX: '2', ...env },
    cwd: projectRoot,
    logFile: context.logFile(name.replace(' ', '-')),
    leash: context.leash,
    stopGraceMs: 30_000,
  };
  const launch = () => startReadyChild(options, ({ pid }) => isWorkerPolling(env, firstTaskQueue(env), pid), 60_000);
  watchErrors(context, name, options.logFile);
  return context.run('worker', { name, launch });
}

function watchErrors(context: StackContext, name: string, logFile: string): void {
  const end = watchLogForErrors(logFile, (message) => context.say(`[${name}] ${message}`));
  context.onStop('watch', async () => end());
}

function apiCommand(runtime: 'node' | 'deno', port: number): { command: string; args: string[] } {
  if (runtime === 'node') return { command: process.execPath, args: ['api/serve.node.ts'] };
  const deno = path.join(projectRoot, 'node_modules', '.bin', 'deno');
  const permissions = ['--allow-net', '--allow-env', '--allow-read', '--allow-sys'];
  return { command: deno, args: ['serve', ...permissions, '--host=127.0.0.1', `--port=${port}`, 'api/serve.deno.ts'] };
}

/** A queue that a worker with these settings polls. */
function firstTaskQueue(env: Environment): string {
  const prefix = env.CARILLON_TASK_QUEUE_PREFIX ?? '';
  const roles = readSettings(env, (settings) => settings.someOf('CARILLON_ROLES', workerRoles));
  if (roles.includes('notifications')) return notificationsTaskQueue(prefix);
  const provider = providerNames.find((name) => roles.includes(name));
  return provider === undefined ? laneTaskQueue(prefix, 'apns') : deliveryTaskQueue(prefix, provider, false);
}
