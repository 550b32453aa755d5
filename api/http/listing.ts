import { z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { TakePlace } from '../access/places.ts';
import { whileValid } from '../access/while-valid.ts';
import { toByteStream } from './byte-stream.ts';
import type { ApiEnv } from './env.ts';
import { ndjsonMediaType, toNdjson } from './ndjson.ts';
import { readPage } from './paging.ts';

const formats = ['json', 'ndjson', 'csv'] as const;
type Format = (typeof formats)[number];

/** Of the query of a listing, beside its cursor and limit. */
export const formatInQuery = z
  .enum(formats)
  .optional()
  .openapi({ description: 'json: pages; ndjson, csv: all in one stream. Default: what Accept asks for.' });

/** The last of each line of a stream. */
const lineCursor = z.string().openapi({
  description: 'As `cursor` of a request it gives the lines after this one: so a stream that was cut short is resumed.',
});

/** For the description of a route. */
export const streamRule =
  'Pages as JSON. As NDJSON or CSV (by Accept or by format) all of it in one stream, from the cursor on; limit does not apply then. A stream that ends without an error is whole; one that broke off is resumed with the cursor of its last whole line, and CSV has its header only where no cursor was given.';

/** The content of a listing's answer: its page, and lines with what `shape` has and a cursor. */
export function listingContent<Page extends z.ZodType>(page: Page, shape: z.ZodRawShape, nameOfLine: string) {
  return {
    'application/json': { schema: page },
    'application/x-ndjson': { schema: z.object({ ...shape, cursor: lineCursor }).openapi(nameOfLine) },
    'text/csv': { schema: z.string() },
  };
}

/** What is listed, in one order that no change of a row changes. */
export interface Listing<Item, Cursor, Line extends object> {
  /** The items after the cursor. Fewer than `limit`: there are no more. */
  read(page: { cursor: Cursor | undefined; limit: number }): Promise<Item[]>;
  cursorAfter(item: Item): Cursor;
  /** As it stands in an answer; default: as text. */
  writeCursor?: (cursor: Cursor) => string;
  toLine(item: Item): Line;
  /** Of a CSV file, before `cursor`. */
  columns: readonly string[];
  /** Where a cell is not what the line has under the name of its column. */
  toCells?: (item: Item, line: Line) => Record<string, unknown>;
  /** One query's worth of memory. */
  linesPerQuery: number;
}

interface Asked<Cursor> {
  cursor?: Cursor | undefined;
  limit: number;
  format?: Format | undefined;
}

/** Where a stream may stand until its reader is done with it. */
interface StreamPlace {
  /** @throws {ApiError} 429 */
  take?: (() => ReturnType<TakePlace>) | undefined;
  /** The process is asked to stop: the stream breaks off. */
  stopping: AbortSignal | undefined;
}

/** The answer to a listing: the page that `answerPage` makes, or a stream of all lines. */
export async function answerListing<Item, Cursor, Line extends object>(
  c: Pick<Context<ApiEnv>, 'req' | 'body'> & { var: Pick<ApiEnv['Variables'], 'isStillValid'> },
  { cursor, limit, format = acceptedFormat(c.req.header('accept')) }: Asked<Cursor>,
  listing: Listing<Item, Cursor, Line>,
  { take, stopping }: StreamPlace,
  answerPage: (lines: Line[], nextCursor: string | null) => Response,
): Promise<never> {
  if (format !== 'json') {
    const lines = toByteStream(whileValid(streamOf(listing, format, cursor, stopping), c.var.isStillValid), take?.());
    return c.body(lines, 200, { 'Content-Type': mediaTypes[format] }) as never;
  }
  const { items, next_cursor } = await readPage(
    limit,
    (limit) => listing.read({ cursor, limit }),
    (item) => cursorText(listing, item),
  );
  return answerPage(items.map(listing.toLine), next_cursor) as never;
}

const mediaTypes = { ndjson: ndjsonMediaType, csv: 'text/csv; charset=utf-8' };

function acceptedFormat(accept = ''): Format {
  if (/application\/((x-)?ndjson|jsonl(ines)?)\b/i.test(accept)) return 'ndjson';
  return /text\/csv/i.test(accept) ? 'csv' : 'json';
}

/** Page by page, so that ten million lines cost no more memory than one page. */
async function* streamOf<Item, Cursor, Line extends object>(
  listing: Listing<Item, Cursor, Line>,
  format: keyof typeof mediaTypes,
  from: Cursor | undefined,
  stopping: AbortSignal | undefined,
): AsyncGenerator<string> {
  const { linesPerQuery: limit, read, cursorAfter } = listing;
  const toText = format === 'csv' ? csvLine : ndjsonLine;
  // A stream that is resumed goes on as if it had never been cut.
  if (format === 'csv' && from === undefined) yield csvRecord([...listing.columns, 'cursor']);
  for (let cursor = from; ; ) {
    // A stream cut short must not look like one that ended.
    stopping?.throwIfAborted();
    const page = await read({ cursor, limit });
    if (page.length > 0) yield page.map((item) => toText(listing, item)).join('');
    if (page.length < limit) return;
    cursor = cursorAfter(page.at(-1)!);
  }
}

function cursorText<Item, Cursor>(
  { cursorAfter, writeCursor = String }: Pick<Listing<Item, Cursor, object>, 'cursorAfter' | 'writeCursor'>,
  item: Item,
): string {
  return writeCursor(cursorAfter(item));
}

function ndjsonLine<Item, Cursor, Line extends object>(listing: Listing<Item, Cursor, Line>, item: Item): string {
  return toNdjson(Object.assign(listing.toLine(item), { cursor: cursorText(listing, item) }));
}

function csvLine<Item, Cursor, Line extends object>(listing: Listing<Item, Cursor, Line>, item: Item): string {
  const line = listing.toLine(item);
  const cells: Record<string, unknown> = { ...line, ...listing.toCells?.(item, line) };
  return csvRecord([...listing.columns.map((column) => cells[column]), cursorText(listing, item)]);
}

function csvRecord(cells: unknown[]): string {
  return `${cells.map(csvCell).join(',')}\r\n`;
}

/** RFC 4180; what is no single value is JSON. A leading = + - @ is a formula to spreadsheets, and texts come from outside. */
function csvCell(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  let text = typeof value === 'string' ? value : JSON.stringify(value);
  if (/^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
