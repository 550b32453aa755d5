/**
 * Header blocks of answers, as HPACK literals without indexing (RFC 7541 §6.2.2): they depend on no table, so any block can be
 * sent on any connection at any time.
 */
import { writeInteger, writeString } from '../http2/hpack.ts';

const statusIndexes: Record<number, number> = { 200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14 };
const nameIndexes: Record<string, number> = { 'content-length': 28, 'content-type': 31, date: 33, 'retry-after': 53 };

/** An upper bound of the encoded size, for reserving room. */
export function headerBlockBound(headers: readonly string[]): number {
  let size = 16;
  for (const text of headers) size += text.length + 6;
  return size;
}

/** Writes a header block; returns the offset behind it. Values are written as Latin-1. */
export function writeHeaderBlock(into: Buffer, start: number, status: number, headers: readonly string[]): number {
  let at = start;
  const statusIndex = statusIndexes[status];
  if (statusIndex !== undefined) into[at++] = 0x80 | statusIndex;
  else {
    into[at++] = 8;
    at = writeString(into, at, String(status), false);
  }
  for (let i = 0; i < headers.length; i += 2) {
    const nameIndex = nameIndexes[headers[i]!];
    if (nameIndex === undefined) {
      into[at++] = 0;
      at = writeString(into, at, headers[i]!, false);
    } else at = writeInteger(into, at, 0, 4, nameIndex);
    at = writeString(into, at, headers[i + 1]!, false);
  }
  return at;
}
