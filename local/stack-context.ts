import { chmodSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import type { LeashHolder } from './leash-holder.ts';
import { findFreePort } from './ports.ts';
import { lockState } from './state-lock.ts';
import { type Supervised, type SupervisedOptions, supervise } from './supervised.ts';

const usualPorts = { api: 8080, postgres: 5433, temporal: 7233, temporalUi: 8233 };
type PortName = keyof typeof usualPorts;

/** Ports on loopback that are tried first; when one is taken, another is chosen and shown. */
export type StackPorts = { [Name in PortName]?: number };

const portOwners: Record<PortName, string> = {
  api: 'the API',
  postgres: 'PostgreSQL',
  temporal: 'Temporal',
  temporalUi: "Temporal's Web UI",
};

/** In the order in which they are stopped; parts of one step stop together. */
const stopSteps = ['watch', 'worker', 'api', 'simulator', 'temporal', 'postgres'] as const;
export type StopStep = (typeof stopSteps)[number];

/** What the parts of one stack share. */
export interface StackContext {
  readonly directory: string;
  readonly isTemporary: boolean;
  readonly logDirectory: string;
  readonly leash: LeashHolder;
  say(line: string): void;
  logFile(name: string): string;
  pickPort(name: PortName): Promise<number>;
  /** Starts a process that is stopped at the given step. */
  run(step: StopStep, process: Pick<SupervisedOptions, 'name' | 'launch'>): Promise<Supervised>;
  onStop(step: StopStep, cleanUp: () => Promise<void>): void;
  /** Stops step by step, the leash last. Safe to repeat. */
  stop(): Promise<void>;
}

export interface StackContextOptions {
  directory: string;
  isTemporary?: boolean;
  ports?: StackPorts | 'free';
  isKeptAlive?: boolean;
  signal?: AbortSignal;
  say?: (line: string) => void;
}

/** Makes the folders and takes the lock. @throws when another stack runs on the folder */
export async function openStackContext(options: StackContextOptions, leash: LeashHolder): Promise<StackContext> {
  const say = options.say ?? (() => undefined);
  const directory = path.resolve(options.directory);
  const logDirectory = path.join(directory, 'logs');
  const { ports = {}, isTemporary = false, isKeptAlive = false } = options;
  const cleanUps = new Map<StopStep, (() => Promise<void>)[]>(stopSteps.map((step) => [step, []]));
  let stopping: Promise<void> | undefined;

  try {
    mkdirSync(logDirectory, { recursive: true });
    // PostgreSQL, as an unprivileged user, must be able to pass through.
    if (process.getuid?.() === 0) chmodSync(directory, 0o755);
    await lockState(leash, directory);
  } catch (error) {
    await leash.end();
    throw error;
  }
  if (isTemporary) leash.removeAtEnd(directory);

  async function stopAll(): Promise<void> {
    for (const step of stopSteps) {
      await Promise.allSettled(cleanUps.get(step)!.map((cleanUp) => cleanUp()));
    }
    await leash.end();
  }

  const context: StackContext = {
    directory,
    isTemporary,
    logDirectory,
    leash,
    say,
    logFile: (name) => path.join(logDirectory, `${name}.log`),
    async pickPort(name) {
      const preferred = ports === 'free' ? undefined : (ports[name] ?? usualPorts[name]);
      const port = await findFreePort(preferred);
      if (preferred !== undefined && port !== preferred) {
        say(`Port ${preferred} for ${portOwners[name]} is taken; using ${port}.`);
      }
      return port;
    },
    async run(step, { name, launch }) {
      options.signal?.throwIfAborted();
      const supervised = await supervise({ name, launch, isKeptAlive, say });
      context.onStop(step, () => supervised.stop());
      return supervised;
    },
    onStop(step, cleanUp) {
      // A process that became ready only after the stop began must not stay.
      if (stopping) void cleanUp();
      else cleanUps.get(step)!.push(cleanUp);
    },
    stop() {
      stopping ??= stopAll();
      return stopping;
    },
  };
  return context;
}
