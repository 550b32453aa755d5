import { utf8Bytes } from '../../domain/json.ts';
import { ApiError } from './api-error.ts';
import { joinBytes } from './join-bytes.ts';

/** A line longer than this is refused; the lines after it are read on. */
const maxLineBytes = 65_536;

/** One line that is not blank, counted from 1; `error` says why it has no text. */
export interface NdjsonLine {
  line: number;
  text: string;
  error?: ApiError;
}

const lineFeed = 10;
const decoder = new TextDecoder('utf-8', { fatal: true });

/**
 * Cuts a stream of bytes into lines, one array for each block that arrives; holds no more than a block and one line. A line that
 * is not UTF-8 or too long is an error of that line alone.
 */
export async function* ndjsonLines(blocks: AsyncIterable<Uint8Array>): AsyncGenerator<NdjsonLine[]> {
  let line = 0;
  let rest: Uint8Array = new Uint8Array();
  let isSkipping = false;
  for await (const block of blocks) {
    const lines: NdjsonLine[] = [];
    let start = 0;
    if (isSkipping) {
      const end = block.indexOf(lineFeed);
      if (end < 0) continue;
      start = end + 1;
      isSkipping = false;
    }
    const bytes = rest.length > 0 ? joinBytes([rest, block]) : block.subarray(start);
    const end = bytes.lastIndexOf(lineFeed) + 1;
    if (end > 0) line = addLines(lines, bytes.subarray(0, end - 1), line);
    // Copied: a view would keep the whole block alive, and the runtime may use the block again.
    rest = bytes.slice(end);
    if (rest.length > maxLineBytes) {
      lines.push({ line: ++line, text: '', error: tooLong() });
      rest = new Uint8Array();
      isSkipping = true;
    }
    if (lines.length > 0) yield lines;
  }
  if (rest.length > 0) {
    const lines: NdjsonLine[] = [];
    addLines(lines, rest, line);
    yield lines;
  }
}

/** Decodes all lines at once, and one by one only where that fails. Returns the number of the last line. */
function addLines(lines: NdjsonLine[], bytes: Uint8Array, lastLine: number): number {
  let line = lastLine;
  let text: string | undefined;
  try {
    text = decoder.decode(bytes);
  } catch {
    text = undefined;
  }
  if (text !== undefined) {
    for (const one of text.split('\n')) {
      line++;
      if (one.length * 3 > maxLineBytes && utf8Bytes(one) > maxLineBytes) {
        lines.push({ line, text: '', error: tooLong() });
      } else if (one.trim() !== '') lines.push({ line, text: one });
    }
    return line;
  }
  for (let start = 0; start <= bytes.length; ) {
    const found = bytes.indexOf(lineFeed, start);
    const end = found < 0 ? bytes.length : found;
    line = addOne(lines, bytes.subarray(start, end), line);
    start = end + 1;
  }
  return line;
}

function addOne(lines: NdjsonLine[], bytes: Uint8Array, lastLine: number): number {
  const line = lastLine + 1;
  try {
    const text = decoder.decode(bytes);
    if (bytes.length > maxLineBytes) lines.push({ line, text: '', error: tooLong() });
    else if (text.trim() !== '') lines.push({ line, text });
  } catch (cause) {
    lines.push({ line, text: '', error: new ApiError(400, 'invalid_encoding', 'Not valid UTF-8.', { cause }) });
  }
  return line;
}

function tooLong(): ApiError {
  return new ApiError(413, 'body_too_large', `The line has more than ${maxLineBytes} bytes.`);
}
