import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { LeashAnswer, LeashCommand } from './leash.ts';

/** This process's end of its leash; see leash.ts for what the leash promises. */
export interface LeashHolder {
  /** From now on `pid` is ended when this process ends. `pid` must lead a process group of its own. */
  hold(pid: number, stopSignal: NodeJS.Signals, graceMs: number): void;
  /** To be called as soon as the process has ended, before its id can be used again. */
  release(pid: number): void;
  /** The folder is removed when this process ends, after all held processes have ended. */
  removeAtEnd(directory: string): void;
  /**
   * Takes the lock that this Unix socket stands for. A holder that is being cleaned up is waited for.
   * @returns false when a living program holds it
   */
  lock(socket: string): Promise<boolean>;
  /** Ends whatever is still held, removes the folders, frees the lock. Returns when all of it is done. */
  end(): Promise<void>;
}

/** Starts the leash. */
export function startLeash(): LeashHolder {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'leash.ts')], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  const exited = once(child, 'exit');
  child.stdin.on('error', () => undefined);
  child.unref();
  (child.stdin as unknown as { unref(): void }).unref();
  (child.stdout as unknown as { unref(): void }).unref();
  const say = (command: LeashCommand) => child.stdin.write(`${JSON.stringify(command)}\n`);

  return {
    hold: (pid, stopSignal, graceMs) => say({ do: 'hold', pid, stopSignal, graceMs }),
    release: (pid) => say({ do: 'release', pid }),
    removeAtEnd: (directory) => say({ do: 'remove', directory }),
    async lock(socket) {
      child.ref();
      const lines = createInterface({ input: child.stdout });
      try {
        say({ do: 'lock', socket });
        const [line] = await Promise.race([
          once(lines, 'line'),
          exited.then(() => Promise.reject(new Error('The leash process ended unexpectedly'))),
        ]);
        const answer: LeashAnswer = JSON.parse(line);
        if (answer.lock === 'failed') throw new Error(`Could not take the lock ${socket}: ${answer.reason}`);
        return answer.lock === 'held';
      } finally {
        child.unref();
      }
    },
    async end() {
      child.ref();
      child.stdin.end();
      await exited;
    },
  };
}
