import { createRoute, z } from '@hono/zod-openapi';
import type { Kysely } from 'kysely';
import { type DeviceRegistration, registerDevices } from '../db/devices.ts';
import type { Database } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import { toByteStream } from './byte-stream.ts';
import type { ApiDependencies, Log } from './dependencies.ts';
import { type NdjsonLine, ndjsonLines } from './ndjson-lines.ts';
import { ApiError, isDatabaseAway, toApiError } from './problems.ts';
import { createRouter } from './router.ts';
import { importRowSchema, toRegistration } from './schemas/device.ts';
import { problems } from './schemas/problem.ts';
import { toApiError as toValidationError } from './schemas/validation.ts';
import { findUnstorable } from './storable.ts';

/** Rows stored by one statement: enough that a row costs little, few enough that one transaction stays well below a second. */
const rowsPerStatement = 5_000;

const failureSchema = z
  .object({
    line: z.int().openapi({ description: 'Counted from 1, blank lines included.' }),
    external_id: z.string().optional(),
    code: z.string(),
    field: z.string(),
    message: z.string(),
  })
  .openapi('ImportFailure');

const summarySchema = z
  .object({
    imported: z.int().openapi({
      description: 'Rows stored. Of rows with one external id close to each other only the last is stored, all count.',
    }),
    failed: z.int(),
    lines: z.int().openapi({ description: 'Lines read, blank ones not counted.' }),
    complete: z.boolean().openapi({ description: 'False: the import ended early, `code` and `message` say why.' }),
    code: z.string().optional(),
    message: z.string().optional(),
  })
  .openapi('ImportSummary');

const progressSchema = z
  .object({ progress: z.object({ imported: z.int(), failed: z.int(), lines: z.int() }) })
  .openapi('ImportProgress');

const importRoute = createRoute({
  method: 'post',
  path: '/v1/devices/import',
  tags: ['Devices'],
  summary: 'Register any number of devices',
  description:
    'One JSON object a line (NDJSON), of any length: the fields of a registration and external_id. The answer is NDJSON too and comes while the import runs: one line for each row that failed, every ten seconds one that says how far it is (clients and proxies give up on a silent connection), at the end one summary. Later rows win over earlier ones. Read the answer while sending.',
  request: { body: { required: true, content: { 'application/x-ndjson': { schema: importRowSchema } } } },
  responses: {
    200: {
      description: 'Failures and progress, then the summary.',
      content: { 'application/x-ndjson': { schema: z.union([failureSchema, progressSchema, summarySchema]) } },
    },
    ...problems(415),
  },
});

export function importDevices(deps: ApiDependencies) {
  return createRouter().openapi(importRoute, (c) => {
    const mediaType = (c.req.header('content-type') ?? '').split(';')[0]!.trim().toLowerCase();
    if (
      !['application/x-ndjson', 'application/ndjson', 'application/jsonl', 'application/jsonlines'].includes(mediaType)
    ) {
      throw new ApiError(415, 'unsupported_media_type', 'Send NDJSON with Content-Type: application/x-ndjson.');
    }
    const answers = importLines(deps, c.var.caller.appId, bytesOf(c.req.raw.body), c.var.log);
    return c.body(toByteStream(answers), 200, { 'Content-Type': 'application/x-ndjson' }) as never;
  });
}

interface Row {
  line: number;
  registration: DeviceRegistration;
}

/** Answer lines as text; the last one is the summary. Never throws: an answer that has begun can only end. */
async function* importLines(
  { db, stopping, importProgressIntervalMs = 10_000 }: ApiDependencies,
  appId: number,
  body: AsyncIterable<Uint8Array>,
  log: Log,
): AsyncGenerator<string> {
  const counts = { imported: 0, failed: 0, lines: 0 };
  let saidAt = performance.now();
  let rows: Row[] = [];
  // One statement is under way while the rows of the next are read and checked.
  let underWay: { rows: number; failures: Promise<RowFailure[]> } | undefined;
  async function settle(): Promise<string> {
    if (!underWay) return '';
    const { rows: stored, failures } = underWay;
    underWay = undefined;
    const failed = await failures;
    counts.imported += stored - failed.length;
    counts.failed += failed.length;
    return failed.map(({ row, error }) => failureLine(row.line, row.registration.externalId, error)).join('');
  }
  function store(): void {
    const failures = storeRows(db, appId, rows);
    // Awaited by settle(); until then a rejection is nobody's surprise.
    failures.catch(() => {});
    underWay = { rows: rows.length, failures };
    rows = [];
  }
  try {
    for await (const lines of ndjsonLines(body)) {
      if (stopping?.aborted) throw new ApiError(503, 'internal', 'The service is stopping: send the rest again.');
      let answer = '';
      for (const line of lines) {
        counts.lines++;
        const row = parseRow(line);
        if ('registration' in row) rows.push(row);
        else {
          counts.failed++;
          answer += failureLine(line.line, row.externalId, row.error);
        }
        if (rows.length >= rowsPerStatement) {
          answer += await settle();
          store();
        }
      }
      if (performance.now() - saidAt >= importProgressIntervalMs) {
        answer += `${JSON.stringify({ progress: counts })}\n`;
        saidAt = performance.now();
      }
      if (answer !== '') yield answer;
    }
    const failures = await settle();
    if (rows.length > 0) store();
    yield failures + (await settle());
    yield `${JSON.stringify({ ...counts, complete: true })}\n`;
  } catch (cause) {
    const error = toApiError(cause);
    log.warn({ err: cause, appId, lines: counts.lines }, 'an import ended early');
    // What was under way may still be stored: it is counted before the last word.
    const failures = await settle().catch(() => '');
    yield `${failures}${JSON.stringify({ ...counts, complete: false, code: error.code, message: error.message })}\n`;
  }
}

interface RowFailure {
  row: Row;
  error: ApiError;
}

function parseRow({ line, text, error }: NdjsonLine): Row | { externalId: string | undefined; error: ApiError } {
  if (error) return { externalId: undefined, error };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    return { externalId: undefined, error: new ApiError(400, 'malformed_json', 'Not valid JSON.', { cause }) };
  }
  try {
    const problem = findUnstorable(value);
    if (problem) throw new ApiError(422, 'invalid_input', problem.message, { errors: [problem] });
    const result = importRowSchema.safeParse(value);
    if (!result.success) throw toValidationError(result.error.issues);
    const { external_id: externalId, ...body } = result.data;
    return { line, registration: toRegistration(externalId, body) };
  } catch (cause) {
    const externalId = (value as { external_id?: unknown } | null)?.external_id;
    return {
      externalId: typeof externalId === 'string' ? externalId.slice(0, 255) : undefined,
      error: toApiError(cause),
    };
  }
}

function failureLine(line: number, externalId: string | undefined, error: ApiError): string {
  const { code, field = '', message } = error;
  return `${JSON.stringify({ line, ...(externalId !== undefined && { external_id: externalId }), code, field, message })}\n`;
}

/**
 * Stores the rows, the last of each external id, in one transaction. A row that the database refuses although it passed every
 * check is found by halving, so that it fails alone.
 */
async function storeRows(db: Kysely<Database>, appId: number, rows: Row[]): Promise<RowFailure[]> {
  const last = new Map<string, DeviceRegistration>();
  for (const { registration } of rows) {
    // Deleted first, so that the order of the map is the order of the last ones.
    last.delete(registration.externalId);
    last.set(registration.externalId, registration);
  }
  try {
    await inTransaction(db, (trx) => registerDevices(trx, appId, [...last.values()]));
    return [];
  } catch (cause) {
    if (isDatabaseAway(cause)) throw cause;
    if (rows.length === 1) return [{ row: rows[0]!, error: toApiError(cause) }];
    const middle = rows.length >> 1;
    const first = await storeRows(db, appId, rows.slice(0, middle));
    return [...first, ...(await storeRows(db, appId, rows.slice(middle)))];
  }
}

/** A client that sends nothing for a minute has gone. */
const idleTimeoutMs = 60_000;

async function* bytesOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new ApiError(408, 'body_timeout', `Nothing was sent for ${idleTimeoutMs} ms.`)),
          idleTimeoutMs,
        );
      });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } finally {
    // Nobody reads on; a body that broke has nothing left to cancel.
    reader.cancel().catch(() => {});
  }
}
