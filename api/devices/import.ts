import { createRoute, z } from '@hono/zod-openapi';
import type { Kysely } from 'kysely';
import { beginImport, type ImportOptions, importDevices as storeDevices } from '../../db/devices.ts';
import type { Database } from '../../db/schema.ts';
import { inTransaction } from '../../db/transaction.ts';
import { cutText } from '../../domain/cut-text.ts';
import type { DeviceRegistration } from '../../domain/registration.ts';
import type { ApiDependencies, Log } from '../dependencies.ts';
import { bytesOf, decodedBody, toByteStream } from '../http/byte-stream.ts';
import { type NdjsonLine, ndjsonLines } from '../http/ndjson-lines.ts';
import { problems } from '../http/problem-schema.ts';
import { ApiError, type FieldProblem, invalidField, toApiError } from '../http/problems.ts';
import { createRouter } from '../http/router.ts';
import { findUnstorable, parseJson } from '../http/storable.ts';
import { toApiError as toValidationError } from '../http/validation.ts';
import { importRowSchema, toRegistration } from './schemas.ts';

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

const warningSchema = z
  .object({
    warning: z.object({ line: z.int(), external_id: z.string(), field: z.string(), message: z.string() }),
  })
  .openapi('ImportWarning', { description: 'The row is stored, without this field.' });

const summarySchema = z
  .object({
    imported: z.int().openapi({ description: 'Rows taken.' }),
    superseded: z.int().openapi({
      description:
        'How many of them a later row with the same external id replaced; properties that it left out are kept.',
    }),
    failed: z.int(),
    warnings: z.int().openapi({ description: 'Fields left out of rows that are stored.' }),
    lines: z.int().openapi({ description: 'Lines read, blank ones not counted.' }),
    complete: z.boolean().openapi({ description: 'False: the import ended early, `code` and `message` say why.' }),
    code: z.string().optional(),
    message: z.string().optional(),
  })
  .openapi('ImportSummary');

const progressSchema = z
  .object({
    progress: z.object({
      imported: z.int(),
      superseded: z.int(),
      failed: z.int(),
      warnings: z.int(),
      lines: z.int(),
    }),
  })
  .openapi('ImportProgress');

/** What a body of lines is called; it may be compressed. */
const ndjsonMediaTypes = ['application/x-ndjson', 'application/ndjson', 'application/jsonl', 'application/jsonlines'];

/** @throws {ApiError} 415 */
export function checkNdjson(contentType: string | undefined): void {
  const mediaType = (contentType ?? '').split(';')[0]!.trim().toLowerCase();
  if (ndjsonMediaTypes.includes(mediaType)) return;
  throw new ApiError(415, 'unsupported_media_type', 'Send NDJSON with Content-Type: application/x-ndjson.');
}

const importRoute = createRoute({
  method: 'post',
  path: '/v1/devices/import',
  tags: ['Devices'],
  summary: 'Register any number of devices',
  description:
    'One JSON object a line (NDJSON), of any length: the fields of a registration and external_id. The answer is NDJSON too and comes while the import runs: one line for each row that failed or lost a field, every ten seconds one that says how far it is (clients and proxies give up on a silent connection), at the end one summary. Later rows win over earlier ones. A row is a copy of what an app registered: with the token that the device has already it neither moves registered_at nor brings a retired device back, unless its registered_at is newer. Content-Encoding: gzip is understood. Read the answer while sending.',
  request: {
    query: z.strictObject({
      register: z.enum(['true', 'false']).optional().openapi({
        description:
          'true: rows without registered_at count as registrations by the app at this moment, so that retired devices live again.',
      }),
    }),
    body: { required: true, content: { 'application/x-ndjson': { schema: importRowSchema } } },
  },
  responses: {
    200: {
      description: 'Failures, warnings and progress, then the summary.',
      content: {
        'application/x-ndjson': { schema: z.union([failureSchema, warningSchema, progressSchema, summarySchema]) },
      },
    },
    ...problems(415, 422),
  },
});

export function importDevices(deps: ApiDependencies) {
  return createRouter().openapi(importRoute, async (c) => {
    checkNdjson(c.req.header('content-type'));
    const body = bytesOf(decodedBody(c.req.raw));
    const options = { importId: await beginImport(deps.db), isOwn: c.req.valid('query').register === 'true' };
    const answers = importLines(deps, c.var.caller.appId, body, options, c.var.log);
    return c.body(toByteStream(answers), 200, { 'Content-Type': 'application/x-ndjson' }) as never;
  });
}

interface Row {
  line: number;
  registration: DeviceRegistration;
  warnings: FieldProblem[];
}

/** Answer lines as text; the last one is the summary. Never throws: an answer that has begun can only end. */
async function* importLines(
  { db, stopping, now, importProgressIntervalMs = 10_000 }: ApiDependencies,
  appId: number,
  body: AsyncIterable<Uint8Array>,
  options: ImportOptions,
  log: Log,
): AsyncGenerator<string> {
  const counts = { imported: 0, superseded: 0, failed: 0, warnings: 0, lines: 0 };
  let saidAt = performance.now();
  let rows: Row[] = [];
  // One statement is under way while the rows of the next are read and checked.
  let underWay: { rows: number; result: Promise<StoreResult> } | undefined;
  async function settle(): Promise<string> {
    if (!underWay) return '';
    const { rows: taken, result } = underWay;
    underWay = undefined;
    const { failed, superseded } = await result;
    counts.imported += taken - failed.length;
    counts.superseded += superseded;
    counts.failed += failed.length;
    return failed.map(({ row, error }) => failureLine(row.line, row.registration.externalId, error)).join('');
  }
  function store(): void {
    const result = storeRows(db, appId, rows, options);
    // Awaited by settle(); until then a rejection is nobody's surprise.
    result.catch(() => {});
    underWay = { rows: rows.length, result };
    rows = [];
  }
  try {
    for await (const lines of ndjsonLines(body)) {
      if (stopping?.aborted) throw new ApiError(503, 'internal', 'The service is stopping: send the rest again.');
      let answer = '';
      for (const line of lines) {
        counts.lines++;
        const row = parseRow(line, now?.() ?? new Date());
        if ('registration' in row) {
          rows.push(row);
          counts.warnings += row.warnings.length;
          for (const warning of row.warnings) answer += warningLine(row, warning);
        } else {
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

interface StoreResult {
  failed: { row: Row; error: ApiError }[];
  superseded: number;
}

/** Every valid id whole: 255 characters of two code units. */
const maxEchoLength = 510;

/** Clocks of callers are a little ahead; what is further in the future is a mistake. */
const maxAheadMs = 60_000;

function parseRow(
  { line, text, error }: NdjsonLine,
  now: Date,
): Row | { externalId: string | undefined; error: ApiError } {
  if (error) return { externalId: undefined, error };
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (cause) {
    return { externalId: undefined, error: new ApiError(400, 'malformed_json', 'Not valid JSON.', { cause }) };
  }
  try {
    const problem = findUnstorable(value);
    if (problem) throw new ApiError(422, 'invalid_input', problem.message, { errors: [problem] });
    const result = importRowSchema.safeParse(value);
    if (!result.success) throw toValidationError(result.error.issues);
    const { external_id: externalId, registered_at: saidAt, ...body } = result.data;
    const { registration, warnings } = toRegistration(externalId, body);
    if (saidAt !== undefined) registration.registeredAt = new Date(saidAt);
    if (Number(registration.registeredAt) > now.getTime() + maxAheadMs) {
      throw invalidField('registered_at', 'Is in the future.');
    }
    return { line, registration, warnings };
  } catch (cause) {
    const externalId = (value as { external_id?: unknown } | null)?.external_id;
    return {
      externalId: typeof externalId === 'string' ? cutText(externalId, maxEchoLength) : undefined,
      error: toApiError(cause),
    };
  }
}

function warningLine({ line, registration }: Row, { field, message }: FieldProblem): string {
  return `${JSON.stringify({ warning: { line, external_id: registration.externalId, field, message } })}\n`;
}

function failureLine(line: number, externalId: string | undefined, error: ApiError): string {
  const { code, field = '', message } = error;
  return `${JSON.stringify({ line, ...(externalId !== undefined && { external_id: externalId }), code, field, message })}\n`;
}

/**
 * Stores the rows in one transaction. A row that the database refuses although it passed every check is found by halving, so
 * that it fails alone.
 */
async function storeRows(
  db: Kysely<Database>,
  appId: number,
  rows: Row[],
  options: ImportOptions,
): Promise<StoreResult> {
  const registrations = rows.map((row) => row.registration);
  try {
    const { superseded } = await inTransaction(db, (trx) => storeDevices(trx, appId, registrations, options));
    return { failed: [], superseded };
  } catch (cause) {
    const error = toApiError(cause);
    if (error.code === 'database_unavailable') throw cause;
    if (rows.length === 1) return { failed: [{ row: rows[0]!, error }], superseded: 0 };
    const middle = rows.length >> 1;
    const first = await storeRows(db, appId, rows.slice(0, middle), options);
    const second = await storeRows(db, appId, rows.slice(middle), options);
    return { failed: [...first.failed, ...second.failed], superseded: first.superseded + second.superseded };
  }
}
