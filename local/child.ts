import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LeashHolder } from './leash-holder.ts';
import { groupExists, signalGroup } from './signals.ts';

export interface ChildOptions {
  /** Shown in messages. */
  name: string;
  command: string;
  args: readonly string[];
  /** The whole environment of the child. Default: this process's. */
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  uid?: number;
  gid?: number;
  /** Both outputs of the child are appended to this file. */
  logFile: string;
  /** Ends the child when this process is killed. */
  leash: LeashHolder;
  /** The signal that asks the child for an orderly stop. Default: SIGTERM. */
  stopSignal?: NodeJS.Signals;
  /** How long an orderly stop may take before SIGKILL. Default: 10 000. */
  stopGraceMs?: number;
}

/** How a child process ended: its exit code, or the signal that ended it. */
export interface ChildExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** One process of the local stack. It leads a process group of its own, so Ctrl-C in the terminal doesn't reach it. */
export interface Child {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  /** `undefined` while the process runs. */
  readonly exit: ChildExit | undefined;
  /** True once `stop()` or `kill()` was called: the child's end is then expected. */
  readonly isStopping: boolean;
  readonly exited: Promise<ChildExit>;
  /** Asks the child to stop and kills it when the grace is over. Safe to repeat. */
  stop(): Promise<void>;
  /** From now on this process may end while the child runs; its leash then ends the child. */
  unref(): void;
  /** Sends a signal to the process and its whole group; SIGKILL is what a crash test wants. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/**
 * Starts a process, which is running but not yet ready when this returns. Throws when it cannot be started at all.
 * @internal
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  mkdirSync(path.dirname(options.logFile), { recursive: true });
  const log = openSync(options.logFile, 'a');
  const process = spawn(options.command, options.args, {
    stdio: ['ignore', log, log],
    detached: true,
    ...(options.env && { env: options.env }),
    ...(options.cwd && { cwd: options.cwd }),
    ...(options.uid !== undefined && { uid: options.uid }),
    ...(options.gid !== undefined && { gid: options.gid }),
  });
  closeSync(log);
  const pid = await spawned(process, options);
  const graceMs = options.stopGraceMs ?? 10_000;
  const stopSignal = options.stopSignal ?? 'SIGTERM';
  options.leash.hold(pid, stopSignal, Math.min(graceMs, 5_000));

  let exit: ChildExit | undefined;
  let isStopping = false;
  const exited = new Promise<ChildExit>((resolve) => {
    process.once('exit', (code, signal) => {
      exit = { code, signal };
      if (!groupExists(pid)) options.leash.release(pid);
      resolve(exit);
    });
  });

  async function endGroup(graceEndsAt: number): Promise<void> {
    while (groupExists(pid) && Date.now() < graceEndsAt) await sleep(20);
    signalGroup(pid, 'SIGKILL');
    while (groupExists(pid) && Date.now() < graceEndsAt + 5_000) await sleep(20);
    await exited;
    options.leash.release(pid);
  }

  return {
    name: options.name,
    pid,
    logFile: options.logFile,
    get exit() {
      return exit;
    },
    get isStopping() {
      return isStopping;
    },
    exited,
    unref: () => process.unref(),
    async stop() {
      isStopping = true;
      const graceEndsAt = Date.now() + graceMs;
      if (!exit) process.kill(stopSignal);
      if (!exit) process.ref();
      await endGroup(graceEndsAt);
    },
    async kill(signal = 'SIGKILL') {
      isStopping = true;
      signalGroup(pid, signal);
      if (signal === 'SIGKILL') {
        await endGroup(0);
      }
    },
  };
}

function spawned(process: ChildProcess, options: ChildOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    process.once('spawn', () => resolve(process.pid!));
    process.once('error', (cause) => reject(new Error(`Could not start ${options.name}: ${cause.message}`, { cause })));
  });
}

/**
 * Starts a process and waits until it is ready; a process that is not ready in time is stopped. Throws as `waitUntilReady` does.
 */
export async function startReadyChild(
  options: ChildOptions,
  isReady: (child: Child) => Promise<boolean>,
  timeoutMs: number,
): Promise<Child> {
  const child = await startChild(options);
  try {
    await waitUntilReady(child, () => isReady(child), timeoutMs);
    return child;
  } catch (error) {
    await child.stop();
    throw error;
  }
}

/** The end of a log file, for messages about a child that failed. */
export function readLogTail(logFile: string, maxLines = 15): string {
  try {
    return readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-maxLines).join('\n');
  } catch {
    return '(no log)';
  }
}

/**
 * Waits until `isReady` answers true, asking again after each false or thrown answer.
 * @throws when the child ends first or `timeoutMs` is over; the message holds the end of the child's log
 */
async function waitUntilReady(child: Child, isReady: () => Promise<boolean>, timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  let lastError: unknown;
  for (;;) {
    if (child.exit) {
      throw new Error(
        `${child.name} ended while starting (${describeExit(child.exit)}). The end of ${child.logFile}:\n${readLogTail(child.logFile)}`,
      );
    }
    try {
      if (await isReady()) return;
    } catch (error) {
      lastError = error;
    }
    if (Date.now() > deadline) {
      throw new Error(
        `${child.name} was not ready after ${timeoutMs / 1000} s. The end of ${child.logFile}:\n${readLogTail(child.logFile)}`,
        { cause: lastError },
      );
    }
    await sleep(100);
  }
}

/** `exit code 1` or `signal SIGKILL`. */
export function describeExit(exit: ChildExit): string {
  return exit.signal ? `signal ${exit.signal}` : `exit code ${exit.code}`;
}
