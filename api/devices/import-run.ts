import { recordChange } from '../../db/audit-entries.ts';
import type { ImportOptions } from '../../db/device-import.ts';
import { importRows } from '../../telemetry/http-metrics.ts';
import { followApp } from '../apps/follow-app.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError } from '../http/api-error.ts';
import type { AppEnv } from '../http/env.ts';
import { toNdjson } from '../http/ndjson.ts';
import type { NdjsonLine } from '../http/ndjson-lines.ts';
import { toApiError } from '../http/to-api-error.ts';
import { type DeviceLimit, limitReached } from './device-limit.ts';
import { type ImportFailure, type ImportRow, readRow } from './import-row.ts';
import { type StoredRows, storeRows } from './store-rows.ts';

/** Rows stored by one statement: enough that a row costs little, few enough that one transaction stays well below a second. */
const rowsPerStatement = 5_000;

/**
 * Stores the devices of `lines` and yields the answer as text: failures, warnings and progress as they come, the summary last.
 * Never throws: an answer that has begun can only end.
 */
export async function* runImport(
  { db, log, stopping, now, limit, importProgressIntervalMs = 10_000 }: ApiDependencies & { limit: DeviceLimit },
  { app: from, actor }: Pick<AppEnv['Variables'], 'app' | 'actor'>,
  lines: AsyncIterable<NdjsonLine[]>,
  options: ImportOptions,
): AsyncGenerator<string> {
  const appNow = followApp(db, from);
  const appId = from.id;
  const counts = { imported: 0, superseded: 0, failed: 0, warnings: 0, lines: 0 };
  let progressAt = performance.now();
  let rows: ImportRow[] = [];
  // One statement is under way while the rows of the next are read and checked.
  let underWay: { rows: number; stored: Promise<StoredRows> } | undefined;

  function beginStatement(): void {
    const stored = storeAdmitted(rows);
    // endStatement() waits for it; a rejection before that is not an unhandled one.
    stored.catch(() => {});
    underWay = { rows: rows.length, stored };
    rows = [];
  }

  async function storeAdmitted(rows: ImportRow[]): Promise<StoredRows> {
    const app = await appNow();
    const refused = await limit.findRefused(
      app,
      rows.map(({ registration }) => registration.externalId),
    );
    if (refused.size === 0) return storeRows(db, appId, rows, options);
    const isRefused = ({ registration: { externalId } }: ImportRow) => refused.has(externalId);
    const admitted = rows.filter((row) => !isRefused(row));
    const stored =
      admitted.length > 0 ? await storeRows(db, appId, admitted, options) : { failures: [], superseded: 0 };
    const error = limitReached(app);
    const failures = rows
      .filter(isRefused)
      .map(({ line, registration: { externalId } }): ImportFailure => ({ line, externalId, error }));
    return { ...stored, failures: [...stored.failures, ...failures] };
  }

  /** Many transactions: recorded once, at the end, with what they came to. */
  async function record(isComplete: boolean): Promise<void> {
    const target = { kind: 'import', id: String(options.importId) };
    const changes = { ...counts, complete: isComplete };
    await recordChange(db, actor, { appId, action: 'devices.import', target, changes }).catch((err) =>
      log.error({ err, appId, ...counts }, 'an import was not recorded in the audit'),
    );
  }

  async function endStatement(): Promise<string> {
    if (!underWay) return '';
    const { rows: taken, stored } = underWay;
    underWay = undefined;
    const { failures, superseded } = await stored;
    counts.imported += taken - failures.length;
    counts.superseded += superseded;
    counts.failed += failures.length;
    importRows.inc({ result: 'imported' }, taken - failures.length - superseded);
    importRows.inc({ result: 'superseded' }, superseded);
    importRows.inc({ result: 'failed' }, failures.length);
    return failures.map(failureLine).join('');
  }

  /** Takes a line, and answers for it where it failed or lost a field. */
  function take(line: NdjsonLine): string {
    counts.lines++;
    const row = readRow(line, now?.() ?? new Date());
    if ('error' in row) {
      counts.failed++;
      importRows.inc({ result: 'failed' });
      return failureLine(row);
    }
    rows.push(row);
    counts.warnings += row.warnings.length;
    return warningLines(row);
  }

  try {
    for await (const block of lines) {
      if (stopping?.aborted) throw new ApiError(503, 'internal', 'The service is stopping: send the rest again.');
      let answer = '';
      for (const line of block) {
        answer += take(line);
        if (rows.length >= rowsPerStatement) {
          answer += await endStatement();
          beginStatement();
        }
      }
      if (performance.now() - progressAt >= importProgressIntervalMs) {
        answer += toNdjson({ progress: counts });
        progressAt = performance.now();
      }
      if (answer !== '') yield answer;
    }
    const failures = await endStatement();
    if (rows.length > 0) beginStatement();
    yield failures + (await endStatement());
    await record(true);
    yield toNdjson({ ...counts, complete: true });
  } catch (cause) {
    const { code, message } = toApiError(cause);
    log.warn({ err: cause, appId, lines: counts.lines }, 'an import ended early');
    // What was under way may still be stored: it is counted before the last word.
    const failures = await endStatement().catch(() => '');
    await record(false);
    yield failures + toNdjson({ ...counts, complete: false, code, message });
  }
}

function failureLine({ line, externalId, error: { code, field = '', message } }: ImportFailure): string {
  return toNdjson({ line, ...(externalId !== undefined && { external_id: externalId }), code, field, message });
}

function warningLines({ line, registration, warnings }: ImportRow): string {
  const { externalId } = registration;
  return warnings
    .map(({ field, message }) => toNdjson({ warning: { line, external_id: externalId, field, message } }))
    .join('');
}
