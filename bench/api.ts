/** The API: rows a second of an import, and requests a second of an app's backend that registers devices and reads them. */
import { Pool } from 'undici';
import { createApiClient } from '../local/api-client.ts';
import { demoDevices } from '../local/demo-audience.ts';
import { formatCount } from '../local/progress.ts';
import type { Stack } from '../local/stack.ts';
import { apnsDeviceToken } from '../simulator/device-tokens.ts';
import { median, tableRow } from './figures.ts';
import { startBenchStack } from './stack.ts';

export interface ApiFigures {
  import_rows_per_second: number;
  /** Registrations and reads in turn. */
  api_requests_per_second: number;
}

const connections = 16;

export async function benchApi(quick: boolean, say: (line: string) => void): Promise<ApiFigures> {
  const [rounds, rows, requests] = quick ? [2, 30_000, 5_000] : [5, 100_000, 20_000];
  const stack = await startBenchStack(0);
  try {
    say(
      `API: ${rounds} rounds, imports of ${formatCount(rows)} rows, ${formatCount(requests)} requests over ${connections} connections`,
    );
    const imports: number[] = [];
    const repeats: number[] = [];
    for (let round = 0; round < rounds; round++) {
      imports.push(await measureImport(stack, rows, `new-${round}`));
      repeats.push(await measureImport(stack, rows, `new-${round}`));
    }
    const backend = new Backend(stack);
    // Every device is registered before one is read.
    await backend.measure(requests, backend.register);
    const rates = { put: [] as number[], get: [] as number[], both: [] as number[] };
    for (let round = 0; round < rounds; round++) {
      rates.put.push(await backend.measure(requests, backend.register));
      rates.get.push(await backend.measure(requests, backend.read));
      rates.both.push(await backend.measure(requests, backend.both));
    }
    await backend.close();
    const show = (title: string, values: number[]) => say(tableRow(title, formatCount(Math.round(median(values)))));
    show('import, new rows/s', imports);
    show('import, known rows/s', repeats);
    show('PUT device, requests/s', rates.put);
    show('GET device, requests/s', rates.get);
    show('both in turn, requests/s', rates.both);
    return {
      import_rows_per_second: Math.round(median(imports)),
      api_requests_per_second: Math.round(median(rates.both)),
    };
  } finally {
    await stack.stop();
  }
}

/** Rows a second. The same name gives the same devices. */
async function measureImport(stack: Stack, rows: number, name: string): Promise<number> {
  const audience = { name, devices: rows, providers: ['fcm'] as const, deadPercent: 0, transientPercent: 0 };
  const startedAt = performance.now();
  const result = await createApiClient(stack.apiUrl, stack.apiKey!).importDevices(demoDevices(audience));
  if (result.imported !== rows || result.failed > 0) throw new Error(`the import took ${JSON.stringify(result)}`);
  return rows / ((performance.now() - startedAt) / 1000);
}

class Backend {
  readonly #pool: Pool;
  readonly #authorization: string;

  constructor(stack: Stack) {
    this.#pool = new Pool(stack.apiUrl, { connections });
    this.#authorization = `Bearer ${stack.apiKey}`;
  }

  readonly register = (n: number): Promise<void> =>
    this.#request('PUT', n, {
      platform: 'ios',
      device_token: apnsDeviceToken(n),
      properties: { plan: n % 2 === 0 ? 'free' : 'paid', visits: n },
    });

  readonly read = (n: number): Promise<void> => this.#request('GET', n);

  readonly both = (n: number): Promise<void> => (n % 2 === 0 ? this.register(n) : this.read(n));

  /** Requests a second. */
  async measure(requests: number, send: (n: number) => Promise<void>): Promise<number> {
    let next = 0;
    const runner = async () => {
      while (next < requests) await send(next++);
    };
    const startedAt = performance.now();
    await Promise.all(Array.from({ length: connections }, runner));
    return requests / ((performance.now() - startedAt) / 1000);
  }

  async #request(method: 'GET' | 'PUT', n: number, body?: object): Promise<void> {
    const answer = await this.#pool.request({
      method,
      path: `/v1/devices/bench-${n}`,
      headers: { authorization: this.#authorization, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300) throw new Error(`${method} bench-${n}: ${answer.statusCode} ${text}`);
  }

  close(): Promise<void> {
    return this.#pool.close();
  }
}
