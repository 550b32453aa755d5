import { cutText } from '../../domain/cut-text.ts';
import type { DeviceRegistration } from '../../domain/registration.ts';
import { type ApiError, type FieldProblem, invalidField } from '../http/api-error.ts';
import { checkLine, parseLine } from '../http/ndjson.ts';
import type { NdjsonLine } from '../http/ndjson-lines.ts';
import { toApiError } from '../http/to-api-error.ts';
import { importRowSchema, toRegistration } from './schemas.ts';

/** A line of an import that can be stored, as far as the line itself tells. */
export interface ImportRow {
  line: number;
  registration: DeviceRegistration;
  /** Fields that were left out. */
  warnings: FieldProblem[];
}

export interface ImportFailure {
  line: number;
  /** As far as the line says it. */
  externalId: string | undefined;
  error: ApiError;
}

/** Clocks of callers are a little ahead; what is further in the future is a mistake. */
const maxAheadMs = 60_000;

export function readRow(source: NdjsonLine, now: Date): ImportRow | ImportFailure {
  let value: unknown;
  try {
    value = parseLine(source);
    const { external_id: externalId, registered_at: saidAt, ...body } = checkLine(value, importRowSchema);
    const { registration, warnings } = toRegistration(externalId, body);
    if (saidAt !== undefined) registration.registeredAt = new Date(saidAt);
    if (Number(registration.registeredAt) > now.getTime() + maxAheadMs) {
      throw invalidField('registered_at', 'Is in the future.');
    }
    return { line: source.line, registration, warnings };
  } catch (cause) {
    return { line: source.line, externalId: externalIdOf(value), error: toApiError(cause) };
  }
}

/** Every valid id whole: 255 characters of two code units. */
const maxEchoLength = 510;

function externalIdOf(value: unknown): string | undefined {
  const id = (value as { external_id?: unknown } | null | undefined)?.external_id;
  return typeof id === 'string' ? cutText(id, maxEchoLength) : undefined;
}
