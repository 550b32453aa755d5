/**
 * SQLSTATE classes and Node's codes that say "the server is away or asks for another try", not "the statement is wrong":
 * 08 connection, 25006 read-only (a standby after a fail-over, a full disk), 53 resources, 57P0x shutting down or starting, 40001/40P01 serialisation and deadlock
 * (PostgreSQL manual, Appendix A).
 */
const transientCodes =
  /^(08...|25006|53...|57P0[1-5]|40001|40P01|ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN)$/;

/** pg gives no code to these: the connection ended under a query, or the pool had none in time. */
const transientMessages =
  /connection terminated|timeout exceeded when trying to connect|not queryable|client has encountered a connection error/i;

export function isTransientDatabaseError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string' && transientCodes.test(code)) return true;
  return transientMessages.test(error.message) || isTransientDatabaseError(error.cause);
}

/**
 * The statement is understood and refused: by the data (class 22), a constraint or a missing partition (23), a trigger (P0), for
 * want of a right (42501). Another try would end the same.
 */
export function isRefusedByDatabase(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' && /^(22...|23...|P0...|42501)$/.test(code);
}

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
      await pause(waitMs, signal);
    }
  }
}

/** Resolves after `ms`, or at once when `signal` is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
