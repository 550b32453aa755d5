import { Context } from '@temporalio/activity';

const heartbeatMs = 1_000;

/**
 * Tells Temporal every second that this worker lives while `work` runs. One statement over a large audience takes longer than
 * the heartbeat time-out, which is there to notice a dead worker and not a busy one. Most activities end before the first.
 * `progress` is what Temporal's UI shows of it; `stop`: the worker shuts down, or Temporal wants the activity cancelled.
 */
export async function whileBeating<T>(
  work: (stop: AbortSignal) => Promise<T>,
  progress: () => unknown = () => undefined,
): Promise<T> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(progress()), heartbeatMs);
  try {
    return await work(context.cancellationSignal);
  } finally {
    clearInterval(timer);
  }
}
