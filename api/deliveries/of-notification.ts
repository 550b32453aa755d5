import { createRoute, z } from '@hono/zod-openapi';
import type { Kysely } from 'kysely';
import { type Delivery, listDeliveries } from '../../db/deliveries.ts';
import { findSummary } from '../../db/notifications.ts';
import type { Database } from '../../db/schema.ts';
import { type Outcome, outcomes } from '../../domain/outcome.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { toByteStream } from '../http/byte-stream.ts';
import { problems } from '../http/problem-schema.ts';
import { notFound } from '../http/problems.ts';
import { createRouter } from '../http/router.ts';
import { pageLimit, rowCursor } from '../http/schemas.ts';
import { checkedId, notificationParams } from '../notifications/schemas.ts';
import { deliveryPageSchema, deliverySchema, fromDelivery } from './schemas.ts';

const formats = ['json', 'ndjson', 'csv'] as const;
type Format = (typeof formats)[number];

const mediaTypes: Record<Format, string> = {
  json: 'application/json',
  ndjson: 'application/x-ndjson',
  csv: 'text/csv; charset=utf-8',
};

const listRoute = createRoute({
  method: 'get',
  path: '/v1/notifications/{id}/deliveries',
  tags: ['Notifications'],
  summary: 'List what became of each device',
  description:
    'Pages as JSON. As NDJSON or CSV (by Accept or by format) all of them in one stream, from the cursor on; cursor and limit of a page do not apply to its length.',
  request: {
    params: notificationParams,
    query: z.strictObject({
      cursor: rowCursor,
      limit: pageLimit(1_000, 100),
      outcome: z.enum(outcomes).optional(),
      reason: z.string().min(1).max(200).optional(),
      format: z.enum(formats).optional(),
    }),
  },
  responses: {
    200: {
      description: 'A page, or the stream.',
      content: {
        'application/json': { schema: deliveryPageSchema },
        'application/x-ndjson': { schema: deliverySchema },
        'text/csv': { schema: z.string() },
      },
    },
    ...problems(404),
  },
});

const rowsPerQuery = 5_000;

export function deliveries({ db, stopping }: ApiDependencies) {
  return createRouter().openapi(listRoute, async (c) => {
    const id = checkedId(c.req.valid('param').id);
    const query = c.req.valid('query');
    const format = query.format ?? acceptedFormat(c.req.header('accept'));
    const { appId } = c.var.caller;
    if (!(await findSummary(db, appId, id))) throw notFound('notification');
    if (format === 'json') {
      const found = await listDeliveries(db, appId, id, { ...query, limit: query.limit + 1 });
      const page = found.slice(0, query.limit);
      const next = found.length > query.limit ? String(page.at(-1)!.deviceId) : null;
      return c.json({ deliveries: page.map(fromDelivery), next_cursor: next }, 200);
    }
    const lines = deliveryLines(db, appId, id, {
      format,
      after: query.cursor,
      outcome: query.outcome,
      reason: query.reason,
      stopping,
    });
    return c.body(toByteStream(lines), 200, { 'Content-Type': mediaTypes[format] }) as never;
  });
}

function acceptedFormat(accept = ''): Format {
  if (/application\/(x-)?ndjson|application\/jsonl/i.test(accept)) return 'ndjson';
  return /text\/csv/i.test(accept) ? 'csv' : 'json';
}

interface Listing {
  format: 'ndjson' | 'csv';
  after: number | undefined;
  outcome: Outcome | undefined;
  reason: string | undefined;
  stopping: AbortSignal | undefined;
}

/** Page by page along the primary key, so that ten million rows cost no more memory than one page. */
async function* deliveryLines(
  db: Kysely<Database>,
  appId: number,
  id: string,
  listing: Listing,
): AsyncGenerator<string> {
  if (listing.format === 'csv') yield `${csvColumns.join(',')}\r\n`;
  let { after } = listing;
  for (;;) {
    // A stream cut short must not look like one that ended.
    listing.stopping?.throwIfAborted();
    const page = await listDeliveries(db, appId, id, { ...listing, cursor: after, limit: rowsPerQuery });
    if (page.length > 0) yield page.map(listing.format === 'csv' ? csvLine : ndjsonLine).join('');
    if (page.length < rowsPerQuery) return;
    after = page.at(-1)!.deviceId;
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
  return `${JSON.stringify(fromDelivery(delivery))}\n`;
}

function csvLine(delivery: Delivery): string {
  const row = fromDelivery(delivery);
  return `${csvColumns.map((column) => csvCell(row[column])).join(',')}\r\n`;
}

/** RFC 4180; a leading = + - @ is a formula to spreadsheets, and these texts come from outside. */
function csvCell(value: string | number | boolean | null): string {
  if (typeof value !== 'string') return value === null ? '' : String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
