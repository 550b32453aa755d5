import type { WorkflowView } from '../activities/activities.ts';
import { shortenText } from '../domain/cut-text.ts';
import type { DeliverBatchInput } from '../domain/delivery.ts';
import type { Books } from '../domain/notification.ts';
import { outcomes } from '../domain/outcome.ts';

/**
 * The books as Markdown for Temporal's UI: a stranger sees what is sent, how far it is, what waits and why. A list, since the
 * UI sets tables without any space between their columns.
 */
export function describeBooks(books: Books, headline: string, notes: string[] = []): string {
  const done = books.audience - books.pending;
  const share = books.audience === 0 ? 0 : Math.floor((done / books.audience) * 1000) / 10;
  const planning = books.isPlanned ? '' : ' The audience is still being planned.';
  return [
    `**${headline}**`,
    '',
    `${count(done)} of ${count(books.audience)} devices have their outcome (${share} %), ${count(books.pending)} are pending. ` +
      `${count(books.batchesFinished)} of ${count(books.batches)} batches are finished.${planning}`,
    '',
    ...outcomes
      .filter((outcome) => books.outcomes[outcome] > 0)
      .map((outcome) => `- ${outcome}: ${count(books.outcomes[outcome])}`),
    `- pending: ${count(books.pending)}`,
    ...notes.flatMap((note) => ['', note]),
    '',
    `As of ${new Date().toISOString()}.`,
  ].join('\n');
}

/** The books of a notification, with what it waits for. */
export function describeNotification(view: WorkflowView, books = view.books, more: string[] = []): string {
  const notes = [...more];
  if (view.state === 'scheduled') notes.push(`Begins at ${view.scheduledAt}.`);
  if (view.state === 'paused' || view.state === 'halted') notes.push(`${whatItWaitsFor(view)}.`);
  for (const { provider, host, since, error } of view.unreachable ?? []) {
    notes.push(`${provider} cannot be reached at ${host} since ${since}: ${error}`);
  }
  if (view.ratePerSecond !== null) notes.push(`Its own limit: ${count(view.ratePerSecond)} devices a second.`);
  return describeBooks(books, `${view.title ?? 'Notification'}: ${view.state}`, notes);
}

/** Of one that is paused or halted. */
export function whatItWaitsFor(view: WorkflowView): string {
  if (view.state === 'paused') return 'Paused: waits for resume or cancel';
  return `Halted, waits for resume after the fix, or for cancel. ${(view.haltDetail ?? '').replace(/\.$/, '')}`;
}

/** One line. */
export function describeBatch({ provider, seq, size }: Pick<DeliverBatchInput, 'provider' | 'seq' | 'size'>): string {
  return `${provider} · batch ${seq} · ${count(size)} devices`;
}

/** 1234567 as people read it: 1 234 567. */
export function count(number: number): string {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ' ');
}

/** One line, at most what Temporal's UI shows of it. */
export function shorten(text: string): string {
  return shortenText(text, 200);
}
