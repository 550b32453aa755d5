import { setTimeout as sleep } from 'node:timers/promises';
import { type Child, type ChildExit, describeExit, readLogTail } from './child.ts';

/** A process of the stack that can be ended and started again in place: same name, same port, same data. */
export interface Supervised {
  readonly name: string;
  /** Id of the process that runs, or ran last. */
  readonly pid: number;
  readonly isRunning: boolean;
  readonly logFile: string;
  /** The process is ready when this returns. Does nothing while it runs. */
  start(): Promise<void>;
  /** Stops the process in order, and kills it when the grace is over. */
  stop(): Promise<void>;
  /** Default SIGKILL, which returns when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** `stop()`, then `start()`. */
  restart(): Promise<void>;
}

export interface SupervisedOptions {
  name: string;
  /** Starts it and waits until it is ready. */
  launch: () => Promise<Child>;
  /** Starts it again when it ends unasked, at most five times a minute. Default: false. */
  isKeptAlive?: boolean;
  say: (line: string) => void;
}

const maxRevivals = 5;
const revivalWindowMs = 60_000;

/** Starts the process and returns when it is ready. */
export async function supervise(options: SupervisedOptions): Promise<Supervised> {
  const { name, say } = options;
  let isWanted = true;
  let revivals: number[] = [];
  let child = await launch();

  async function launch(): Promise<Child> {
    const started = await options.launch();
    void started.exited.then((exit) => {
      if (isWanted && !started.isStopping) void revive(started, exit);
    });
    return started;
  }

  async function revive(ended: Child, exit: ChildExit): Promise<void> {
    say(
      `${name} ended unexpectedly (${describeExit(exit)}). The end of ${ended.logFile}:\n${readLogTail(ended.logFile)}`,
    );
    while (options.isKeptAlive && isWanted) {
      revivals = [...revivals.filter((at) => at > Date.now() - revivalWindowMs), Date.now()];
      if (revivals.length > maxRevivals) {
        say(`${name} ended ${maxRevivals} times within a minute and is not started again.`);
        return;
      }
      await sleep(1_000);
      if (!isWanted) return;
      try {
        child = await launch();
        say(`${name} was started again (process ${child.pid}).`);
        return;
      } catch (error) {
        say(error instanceof Error ? error.message : String(error));
      }
    }
  }

  const supervised: Supervised = {
    name,
    get pid() {
      return child.pid;
    },
    get isRunning() {
      return child.exit === undefined;
    },
    get logFile() {
      return child.logFile;
    },
    async start() {
      isWanted = true;
      if (child.exit) child = await launch();
    },
    async stop() {
      isWanted = false;
      await child.stop();
    },
    async kill(signal) {
      isWanted = false;
      await child.kill(signal);
    },
    async restart() {
      await supervised.stop();
      await supervised.start();
    },
  };
  return supervised;
}
