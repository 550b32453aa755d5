import type { Kysely } from 'kysely';
import { type Delivery, type DeliveryCursor, listDeliveries } from '../../db/deliveries.ts';
import type { Database } from '../../db/schema.ts';
import type { Outcome } from '../../domain/outcome.ts';
import { toNdjson } from '../http/ndjson.ts';
import { fromDelivery } from './schemas.ts';

/** One query's worth of memory; a batch is unfolded again for each. */
const linesPerQuery = 10_000;

interface StreamedListing {
  format: keyof typeof toLine;
  cursor: DeliveryCursor | undefined;
  outcome: Outcome | undefined;
  reason: string | undefined;
}

/**
 * All deliveries of a notification from the cursor on, as text: page by page, so that ten million lines cost no more memory than one
 * page.
 */
export async function* streamDeliveries(
  db: Kysely<Database>,
  appId: number,
  notificationId: string,
  { format, cursor: from, ...search }: StreamedListing,
  stopping: AbortSignal | undefined,
): AsyncGenerator<string> {
  if (format === 'csv') yield `${csvColumns.join(',')}\r\n`;
  for (let cursor = from; ; ) {
    // A stream cut short must not look like one that ended.
    stopping?.throwIfAborted();
    const page = await listDeliveries(db, appId, notificationId, search, { cursor, limit: linesPerQuery });
    if (page.length > 0) yield page.map(toLine[format]).join('');
    if (page.length < linesPerQuery) return;
    cursor = page.at(-1)!;
  }
}

const csvColumns = [
  'notification_id',
  'external_id',
  'outcome',
  'reason',
  'http_status',
  'provider_message_id',
  'attempts',
  'in_doubt',
  'finished_at',
] as const;

function ndjsonLine(delivery: Delivery): string {
  return toNdjson(fromDelivery(delivery));
}

function csvLine(delivery: Delivery): string {
  const row = fromDelivery(delivery);
  return `${csvColumns.map((column) => csvCell(row[column])).join(',')}\r\n`;
}

const toLine = { ndjson: ndjsonLine, csv: csvLine };

/** RFC 4180; a leading = + - @ is a formula to spreadsheets, and these texts come from outside. */
function csvCell(value: string | number | boolean | null): string {
  if (typeof value !== 'string') return value === null ? '' : String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
