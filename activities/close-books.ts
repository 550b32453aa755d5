import { ApplicationFailure } from '@temporalio/activity';
import { auditBooks } from '../db/audit.ts';
import { listOpenBatches } from '../db/batches.ts';
import { closeBooksOfAnyApp, countTotals } from '../db/close-books.ts';
import { getSummaryOfAnyApp } from '../db/notifications.ts';
import type { ActivityDeps } from './activities.ts';

/**
 * Counts the outcomes from the groups, holds them against the frozen audience and stores them. Answers `isClosed: false` while
 * a batch is open. Keyed by `finished_at`: a repeat changes nothing.
 * @throws {ApplicationFailure} `books_unbalanced`, final: the invariant is broken, which needs a person.
 */
export async function closeBooks(deps: ActivityDeps, notificationId: string): Promise<{ isClosed: boolean }> {
  const open = await listOpenBatches(deps.db, notificationId, 0, 1);
  if (open.length > 0) return { isClosed: false };
  const { books, state, finishedAt } = await getSummaryOfAnyApp(deps.db, notificationId);
  if (finishedAt !== null) return { isClosed: true };
  if (!books.isPlanned) return { isClosed: false };
  const { devices, ...totals } = await countTotals(deps.db, notificationId);
  const faults = await auditBooks(deps.db, notificationId);
  if (devices !== books.audience || faults.length > 0) {
    deps.log.error(
      { notificationId, audience: books.audience, recorded: devices, batches: faults.slice(0, 10) },
      'books do not balance',
    );
    throw ApplicationFailure.nonRetryable(
      `audience ${books.audience}, outcomes ${devices}, batches at fault: ${faults.map((fault) => fault.seq).join(', ')}`,
      'books_unbalanced',
    );
  }
  await closeBooksOfAnyApp(deps.db, notificationId, totals);
  deps.log.info(
    { notificationId, state, audience: devices, outcomes: totals.outcomes, inDoubt: totals.inDoubt },
    'books closed',
  );
  return { isClosed: true };
}
