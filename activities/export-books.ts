import { createHash } from 'node:crypto';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { ApplicationFailure } from '@temporalio/activity';
import { findAppOfAnyApp } from '../db/apps.ts';
import { noteExportOfAnyApp } from '../db/book-exports.ts';
import { type DeliveryCursor, listDeliveries } from '../db/deliveries.ts';
import { getSummaryOfAnyApp } from '../db/notifications.ts';
import type { ExportBooksInput, ExportBooksResult } from '../domain/book-export.ts';
import { toDeliveryLine } from '../domain/delivery-line.ts';
import type { NotificationSummary } from '../domain/notification.ts';
import type { ActivityDeps } from './activities.ts';
import { type BookStore, BookStoreError } from './book-store.ts';

/** One query's worth of memory. */
const linesPerQuery = 10_000;

/** How far an upload is. */
export interface ExportProgress {
  lines: number;
}

/**
 * Uploads the books of a notification that has ended: `deliveries.ndjson.gz`, a line for each device, and after it `summary.json`, so that
 * where the summary is, all is. Keyed by the objects' names: a repeat writes the same objects again.
 * @throws {ApplicationFailure} to be tried again: `book_store`, the store refused, or did not answer; `books_incomplete`, they were being
 * deleted meanwhile, with their app
 */
export async function exportBooks(
  { db, log, bookStore: store }: Pick<ActivityDeps, 'db' | 'log' | 'bookStore'>,
  { notificationId }: ExportBooksInput,
  stop: AbortSignal,
  progress: ExportProgress = { lines: 0 },
): Promise<ExportBooksResult> {
  if (!store) throw ApplicationFailure.retryable('This worker has no bucket set.', 'book_store');
  const notification = await getSummaryOfAnyApp(db, notificationId);
  const { appId, finishedAt } = notification;
  const app = await findAppOfAnyApp(db, appId);
  if (!app || finishedAt === null) return undefined;
  // By the day on which it ended, UTC.
  const folder = `${store.prefix}${app.name}/${finishedAt.toISOString().slice(0, 10).replaceAll('-', '/')}/${notificationId}/`;
  const key = `${folder}deliveries.ndjson.gz`;

  async function* lines(): AsyncGenerator<string> {
    for (let cursor: DeliveryCursor | undefined; ; ) {
      const page = await listDeliveries(db, appId, notificationId, {}, { cursor, limit: linesPerQuery });
      progress.lines += page.length;
      if (page.length > 0) yield page.map((delivery) => `${JSON.stringify(toDeliveryLine(delivery))}\n`).join('');
      if (page.length < linesPerQuery) return;
      cursor = page.at(-1)!;
    }
  }

  try {
    const { bytes, sha256 } = await upload(store, key, lines(), stop);
    const { audience } = notification.books;
    if (progress.lines !== audience) {
      const message = `${progress.lines} outcomes were read of ${audience}: is the app being deleted?`;
      throw ApplicationFailure.retryable(message, 'books_incomplete');
    }
    const deliveries = { key, lines: progress.lines, bytes, sha256 };
    const summary = `${JSON.stringify({ ...summaryOf(notification, app.name), deliveries }, null, 2)}\n`;
    await store.put(`${folder}summary.json`, summary, 'application/json', stop);
    await noteExportOfAnyApp(db, notificationId);
    if (store.fault !== undefined) log.info({ store: store.name }, 'books can be uploaded again');
    store.fault = undefined;
    log.info({ notificationId, ...deliveries }, 'books uploaded');
    return { lines: progress.lines, bytes };
  } catch (error) {
    if (!(error instanceof BookStoreError)) throw error;
    // Once for all the sends that wait for it; each tries again by itself.
    if (store.fault !== error.fault) {
      const { fault, message: detail } = error;
      log.warn({ store: store.name, fault, detail }, 'books cannot be uploaded: tried again and again, for days');
    }
    store.fault = error.fault;
    throw ApplicationFailure.retryable(`${store.name} could not be written to: ${error.fault}`, 'book_store');
  }
}

/** A fault of either end ends the other: what was cut short is never stored as if it were whole. */
async function upload(
  store: BookStore,
  key: string,
  lines: AsyncGenerator<string>,
  stop: AbortSignal,
): Promise<{ bytes: number; sha256: string }> {
  await store.forgetParts(key, stop);
  const hash = createHash('sha256');
  let bytes = 0;
  const counted = new Transform({
    transform(block: Buffer, _, done) {
      bytes += block.length;
      hash.update(block);
      done(null, block);
    },
  });
  const filling = pipeline(Readable.from(lines), createGzip(), counted, { signal: stop });
  const storing = store.put(key, counted, 'application/gzip', stop);
  let fault: unknown;
  filling.catch((error: unknown) => {
    fault ??= error;
  });
  storing.catch((error: Error) => {
    fault ??= error;
    counted.destroy(error);
  });
  await Promise.allSettled([filling, storing]);
  if (fault !== undefined) throw fault;
  return { bytes, sha256: hash.digest('hex') };
}

/** What happened to it, without what it said and to whom. */
function summaryOf(notification: NotificationSummary, app: string) {
  const { id, state, inDoubtPolicy, ratePerSecond, books, totals } = notification;
  const at = (instant: Date | null) => instant?.toISOString() ?? null;
  return {
    ...{ id, app, state, in_doubt_policy: inDoubtPolicy, rate_per_second: ratePerSecond },
    ...{ created_at: at(notification.createdAt), scheduled_at: at(notification.scheduledAt) },
    ...{ launched_at: at(notification.launchedAt), expires_at: at(notification.expiresAt) },
    ...{ finished_at: at(notification.finishedAt), audience: books.audience, outcomes: books.outcomes },
    ...{ reasons: totals?.reasons ?? {}, in_doubt: totals?.inDoubt ?? 0 },
  };
}
