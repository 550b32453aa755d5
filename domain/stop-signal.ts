import process from 'node:process';

/** Ctrl-C under npm comes twice within a moment: from the terminal, and passed on by npm. */
const sameSignalMs = 500;
const parentLookMs = 500;

/**
 * For programs: aborted at the first Ctrl-C, SIGTERM or closed terminal, and when the npm that runs this program dies silently,
 * which would leave the program as an orphan. A second signal ends this process at once; its leash, where it has one, then ends
 * the processes that it started.
 */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  let stoppedAt: number | undefined;
  function stop(reason: string): void {
    if (stoppedAt !== undefined && performance.now() - stoppedAt < sameSignalMs) return;
    if (stoppedAt !== undefined) process.exit(1);
    stoppedAt = performance.now();
    controller.abort(new Error(`Stopped by ${reason}`));
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop(signal));
  if (process.env.npm_lifecycle_event) {
    const parent = process.ppid;
    const watch = setInterval(() => {
      if (process.ppid === parent) return;
      clearInterval(watch);
      stop('the end of npm');
    }, parentLookMs);
    watch.unref();
  }
  return controller.signal;
}
