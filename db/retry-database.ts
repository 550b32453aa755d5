import { pause } from '../domain/pause.ts';
import { isTransientDatabaseError } from './database-error.ts';

/** How often this process has tried again. */
export const databaseRetries = { count: 0 };

/**
 * Runs until it succeeds, while the fault is the server's absence; waits 100 ms, doubling to 5 s. Anything that may have
 * been stored twice must be safe to repeat.
 * @throws the last error when `signal` is aborted, and every error that another try cannot heal.
 */
export async function retryDatabase<T>(run: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 5_000)) {
    try {
      return await run();
    } catch (error) {
      if (!isTransientDatabaseError(error) || signal.aborted) throw error;
      databaseRetries.count += 1;
      await pause(waitMs, signal);
    }
  }
}
