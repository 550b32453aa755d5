import { ReadableStream } from 'node:stream/web';

/** What the demo, benches and tests need of the REST API. Paths begin with `/`. */
export interface ApiClient {
  get<T>(path: string): Promise<T>;
  /** @throws when the answer is no success; the message holds the problem document */
  post<T>(path: string, body: unknown): Promise<T>;
  /** Succeeds also when there is nothing to delete. */
  delete(path: string): Promise<void>;
  /** Streams rows as NDJSON, whatever their number. @returns the summary, with the first failures */
  importDevices(rows: Iterable<object>): Promise<ImportResult>;
}

export interface ImportResult {
  imported: number;
  failed: number;
  complete: boolean;
  /** At most ten. */
  failures: unknown[];
}

/** The part of a notification that clients here look at. */
export interface NotificationView {
  id: string;
  state: string;
  halt: { reason: string; detail: string } | null;
  finished_at: string | null;
  books: {
    audience: number;
    outcomes: Record<string, number>;
    pending: number;
    balanced: boolean;
    is_planned: boolean;
    batches: number;
    batches_finished: number;
  };
  totals: { outcomes: Record<string, number>; in_doubt: number } | null;
}

/** Enough that a chunk costs little beside its rows. */
const rowsPerChunk = 500;

export function createApiClient(apiUrl: string, apiKey: string): ApiClient {
  const authorization = `Bearer ${apiKey}`;

  async function send(path: string, init: RequestInit & { duplex?: 'half' }): Promise<Response> {
    const answer = await fetch(apiUrl + path, init);
    if (!answer.ok) throw new Error(`${init.method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer;
  }

  return {
    async get<T>(path: string) {
      const answer = await send(path, { method: 'GET', headers: { authorization } });
      return (await answer.json()) as T;
    },
    async post<T>(path: string, body: unknown) {
      const headers = { authorization, 'content-type': 'application/json' };
      const answer = await send(path, { method: 'POST', headers, body: JSON.stringify(body) });
      return (await answer.json()) as T;
    },
    async delete(path) {
      const answer = await fetch(apiUrl + path, { method: 'DELETE', headers: { authorization } });
      if (!answer.ok && answer.status !== 404)
        throw new Error(`DELETE ${path}: ${answer.status} ${await answer.text()}`);
    },
    async importDevices(rows) {
      const answer = await send('/v1/devices/import', {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/x-ndjson' },
        body: ReadableStream.from(toChunks(rows)) as unknown as BodyInit,
        duplex: 'half',
      });
      const lines = (await answer.text()).trimEnd().split('\n');
      const summary = JSON.parse(lines.pop()!) as Omit<ImportResult, 'failures'>;
      const failures = lines.map((line) => JSON.parse(line)).filter((line) => !('progress' in line));
      return { ...summary, failures: failures.slice(0, 10) };
    },
  };
}

function* toChunks(rows: Iterable<object>): Generator<Uint8Array> {
  const encoder = new TextEncoder();
  let lines: string[] = [];
  for (const row of rows) {
    lines.push(JSON.stringify(row));
    if (lines.length === rowsPerChunk) {
      yield encoder.encode(`${lines.join('\n')}\n`);
      lines = [];
    }
  }
  if (lines.length > 0) yield encoder.encode(`${lines.join('\n')}\n`);
}
