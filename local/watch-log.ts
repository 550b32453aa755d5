import { createReadStream, statSync } from 'node:fs';

const pinoError = 50;

/**
 * Reads what is added to a log of JSON lines and hands on the message of every line at level error or above. A line that is no
 * JSON (a stack trace of a program that could not start) stays in the file only.
 * @returns ends the watch
 */
export function watchLogForErrors(logFile: string, onError: (message: string) => void, intervalMs = 500): () => void {
  let position = sizeOf(logFile);
  let remainder = '';
  let isReading = false;

  const timer = setInterval(async () => {
    const size = sizeOf(logFile);
    if (isReading || size <= position) return;
    isReading = true;
    try {
      const stream = createReadStream(logFile, { start: position, end: size - 1, encoding: 'utf8' });
      position = size;
      for await (const part of stream) {
        const lines = (remainder + part).split('\n');
        remainder = lines.pop() ?? '';
        for (const line of lines) report(line);
      }
    } finally {
      isReading = false;
    }
  }, intervalMs);
  timer.unref();

  function report(line: string): void {
    if (!line.startsWith('{')) return;
    try {
      const entry = JSON.parse(line) as { level?: unknown; msg?: unknown; err?: { message?: unknown } };
      if (typeof entry.level !== 'number' || entry.level < pinoError) return;
      onError([entry.msg, entry.err?.message].filter((text) => typeof text === 'string').join(': '));
    } catch {
      // Half a line, or no JSON: it stays in the file only.
    }
  }

  return () => clearInterval(timer);
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
