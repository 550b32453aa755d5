/**
 * The leash: a small program that outlives its parent just long enough to end what the parent started.
 *
 * The parent keeps the leash's stdin open and says, one JSON object a line, what the leash holds. When stdin ends (the parent
 * ended, in any way, `kill -9` included) the leash asks every process still held to stop, then kills it, last started first, and
 * removes the folders named for removal. It also keeps the lock of a data folder until the last process is gone: a start that
 * follows a killed one waits for the clean-up instead of meeting a half-stopped database.
 *
 * It runs in a session of its own, so that Ctrl-C in the terminal reaches the parent alone.
 */
import { rmSync, unlinkSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { groupExists, isRunning, signalGroup } from './signals.ts';

export type LeashCommand =
  | { do: 'lock'; socket: string }
  | { do: 'hold'; pid: number; stopSignal: NodeJS.Signals; graceMs: number }
  | { do: 'release'; pid: number }
  | { do: 'remove'; directory: string };

/** Answer to `lock`: `taken` when another leash holds it and its parent is alive. */
export type LeashAnswer = { lock: 'held' | 'taken' | 'failed'; reason?: string };

const lockWaitMs = 40_000;

type Held = Extract<LeashCommand, { do: 'hold' }>;

const held = new Map<number, Held>();
const directories = new Set<string>();
let lockedSocket: string | undefined;
let isParentGone = false;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => undefined);
}
process.stdout.on('error', () => undefined);

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command: LeashCommand = JSON.parse(line);
  if (command.do === 'hold') held.set(command.pid, command);
  else if (command.do === 'release') held.delete(command.pid);
  else if (command.do === 'remove') directories.add(command.directory);
  else void acquireLock(command.socket).then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
});
lines.on('close', () => {
  isParentGone = true;
  void cleanUp();
});

async function cleanUp(): Promise<void> {
  for (const process of [...held.values()].reverse()) await end(process);
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  if (lockedSocket) unlinkSync(lockedSocket);
  process.exit(0);
}

async function end({ pid, stopSignal, graceMs }: Held): Promise<void> {
  if (isRunning(pid)) process.kill(pid, stopSignal);
  const deadline = Date.now() + graceMs;
  while (groupExists(pid) && Date.now() < deadline) await sleep(50);
  signalGroup(pid, 'SIGKILL');
  while (groupExists(pid) && Date.now() < deadline + 5_000) await sleep(50);
}

/** A listening Unix socket is a lock that cannot go stale: no process listens once its owner is dead. */
async function acquireLock(socket: string): Promise<LeashAnswer> {
  const deadline = Date.now() + lockWaitMs;
  for (;;) {
    const failure = await listen(socket);
    if (failure === undefined) {
      lockedSocket = socket;
      return { lock: 'held' };
    }
    if (failure !== 'EADDRINUSE') return { lock: 'failed', reason: failure };
    const owner = await askOwner(socket);
    if (owner === 'running') return { lock: 'taken' };
    if (owner === 'gone') rmSync(socket, { force: true });
    if (Date.now() > deadline) return { lock: 'taken' };
    await sleep(200);
  }
}

function listen(socket: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer((peer) => peer.end(isParentGone ? 'ending' : 'running'));
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen(socket, () => resolve(undefined));
  });
}

function askOwner(socket: string): Promise<'running' | 'ending' | 'gone'> {
  return new Promise((resolve) => {
    let answer = '';
    const peer = createConnection(socket);
    peer.setEncoding('utf8').setTimeout(2_000, () => peer.destroy());
    peer.on('data', (part) => {
      answer += part;
    });
    peer.on('error', () => resolve('gone'));
    peer.on('close', () => resolve(answer === 'running' ? 'running' : 'ending'));
  });
}
