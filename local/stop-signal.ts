/**
 * Aborted at the first Ctrl-C, SIGTERM or closed terminal. A second one ends this process at once; its leash then ends
 * what it started.
 */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(1);
      controller.abort(new Error(`Stopped by ${signal}`));
    });
  }
  return controller.signal;
}
