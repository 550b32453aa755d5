import type { Books } from '../domain/notification.ts';
import { outcomes } from '../domain/outcome.ts';

/** The books as Markdown for Temporal's UI: a stranger sees how far the send is. */
export function describeBooks(books: Books, headline: string): string {
  const done = books.audience - books.pending;
  const share = books.audience === 0 ? 0 : Math.floor((done / books.audience) * 1000) / 10;
  const rows = outcomes
    .filter((outcome) => books.outcomes[outcome] > 0)
    .map((outcome) => `| ${outcome} | ${books.outcomes[outcome]} |`);
  return [
    `**${headline}**`,
    '',
    `${done} of ${books.audience} devices have their outcome (${share} %), ${books.pending} pending${
      books.isPlanned ? '' : '; the audience is still being planned'
    }. ${books.batchesFinished} of ${books.batches} batches finished.`,
    '',
    '| outcome | devices |',
    '| --- | --- |',
    ...rows,
  ].join('\n');
}
