import type { z } from '@hono/zod-openapi';
import { ApiError } from './api-error.ts';
import { blocksOf } from './byte-stream.ts';
import { decodedBody } from './content-encoding.ts';
import { type NdjsonLine, ndjsonLines } from './ndjson-lines.ts';
import { parseJson, refuseUnstorable } from './storable.ts';
import { validationError } from './validation.ts';

export const ndjsonMediaType = 'application/x-ndjson';

const acceptedMediaTypes = [ndjsonMediaType, 'application/ndjson', 'application/jsonl', 'application/jsonlines'];

/** Whether a `Content-Type` says that the body is lines of JSON. */
export function isNdjson(contentType: string | null | undefined): boolean {
  return acceptedMediaTypes.includes((contentType ?? '').split(';')[0]!.trim().toLowerCase());
}

/**
 * The lines of a request of any length, read as they come; the body may be compressed.
 * @throws {ApiError} 415 at once; while it is read 408, and 400 or 413 for its compression.
 */
export function ndjsonBody(request: Request): AsyncGenerator<NdjsonLine[]> {
  if (!isNdjson(request.headers.get('content-type'))) {
    throw new ApiError(415, 'unsupported_media_type', `Send NDJSON with Content-Type: ${ndjsonMediaType}.`);
  }
  return ndjsonLines(blocksOf(decodedBody(request)));
}

/** @throws {ApiError} 400 or 413 */
export function parseLine({ text, error }: NdjsonLine): unknown {
  if (error) throw error;
  return parseJson(text, 'Not valid JSON.');
}

/** The value of a line as its schema reads it. @throws {ApiError} 422 with each field that is wrong. */
export function checkLine<Schema extends z.ZodType>(value: unknown, schema: Schema): z.infer<Schema> {
  refuseUnstorable(value);
  const result = schema.safeParse(value);
  if (!result.success) throw validationError(result.error.issues);
  return result.data;
}

/** A line of an answer. */
export function toNdjson(value: object): string {
  return `${JSON.stringify(value)}\n`;
}
