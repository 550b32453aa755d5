import type { Client } from '@temporalio/client';
import { listUnexportedOfAllApps, noteBookStore } from '../db/book-exports.ts';
import { bookExportStart } from '../domain/book-export.ts';
import { exportBooksWorkflowType } from '../domain/ids.ts';
import { pause } from '../domain/pause.ts';
import type { ActivityDeps } from './activities.ts';

const deadlineMs = 5_000;
/** Of one round. */
const maxStarts = 100;
/** A workflow that was started runs for days where it must; whether one is there is asked so seldom. */
const askAgainMs = 600_000;

/**
 * Starts the upload of every send that has ended and whose books are not uploaded; where its workflow runs already, nothing happens.
 * `started`: when which was started here, on the clock of `performance.now`.
 * @internal
 */
export async function startBookExports(
  { db }: Pick<ActivityDeps, 'db'>,
  client: Client,
  taskQueue: string,
  since: Date,
  started: Map<string, number>,
): Promise<void> {
  const now = performance.now();
  for (const [id, at] of started) if (now - at > askAgainMs) started.delete(id);
  for (const id of await listUnexportedOfAllApps(db, { since, except: [...started.keys()], limit: maxStarts })) {
    await client.withDeadline(Date.now() + deadlineMs, () =>
      client.workflow.start(exportBooksWorkflowType, bookExportStart(id, taskQueue)),
    );
    started.set(id, now);
  }
}

/** A round of `startBookExports` every few seconds, for as long as `signal` allows; a failed one is logged and tried again. */
export async function runBookExports(
  deps: ActivityDeps,
  client: Client,
  taskQueue: string,
  signal: AbortSignal,
): Promise<void> {
  const { db, log, bookStore, config } = deps;
  if (!bookStore) return;
  const started = new Map<string, number>();
  let { since } = config.bookExport ?? {};
  while (!signal.aborted) {
    try {
      since ??= await noteBookStore(db, bookStore.name);
      await startBookExports(deps, client, taskQueue, since, started);
    } catch (err) {
      log.warn({ err }, 'uploads of books could not be started, later again');
    }
    await pause(config.reconcileIntervalMs, signal);
  }
}
