/** The API: rows a second of an import, and requests a second of an app's backend that registers devices and reads them. */
import { Pool } from 'undici';
import { createApiClient } from '../local/api-client.ts';
import { demoDevices } from '../local/demo-audience.ts';
import { formatCount } from '../local/progress.ts';
import type { Stack } from '../local/stack.ts';
import { apnsDeviceToken } from '../simulator/device-tokens.ts';
import { median, tableRow } from './figures.ts';
import { cpuMs } from './processes.ts';
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
    const backend = new Backend(stack);
    const imports: Pace[] = [];
    const repeats: Pace[] = [];
    const news: Pace[] = [];
    const puts: Pace[] = [];
    const gets: Pace[] = [];
    const both: Pace[] = [];
    for (let round = 0; round < rounds; round++) {
      const importRows = () => importDevices(stack, rows, `new-${round}`);
      imports.push(await measure(stack, rows, importRows));
      repeats.push(await measure(stack, rows, importRows));
      const first = round * requests;
      news.push(await measure(stack, requests, () => backend.send(first, requests, backend.register)));
      puts.push(await measure(stack, requests, () => backend.send(first, requests, backend.register)));
      gets.push(await measure(stack, requests, () => backend.send(first, requests, backend.read)));
      both.push(await measure(stack, requests, () => backend.send(first, requests, backend.both)));
    }
    await backend.close();
    const show = (title: string, paces: Pace[]) => {
      const middle = (of: (pace: Pace) => number) => formatCount(Math.round(median(paces.map(of))));
      say(
        tableRow(
          title,
          middle((pace) => pace.perSecond),
          ...cpuOwners.map((owner) => middle((pace) => pace.cpuUs[owner])),
        ),
      );
    };
    say(tableRow('', 'a second', ...cpuOwners.map((owner) => `${owner}, µs`)));
    show('import, new rows', imports);
    show('import, known rows', repeats);
    show('PUT, new devices', news);
    show('PUT, known devices', puts);
    show('GET device', gets);
    show('PUT and GET in turn', both);
    return {
      import_rows_per_second: Math.round(median(imports.map((pace) => pace.perSecond))),
      api_requests_per_second: Math.round(median(both.map((pace) => pace.perSecond))),
    };
  } finally {
    await stack.stop();
  }
}

const cpuOwners = ['api', 'postgres', 'caller'] as const;

/** Of one row or request: CPU in microseconds. */
interface Pace {
  perSecond: number;
  cpuUs: Record<(typeof cpuOwners)[number], number>;
}

async function measure(stack: Stack, count: number, work: () => Promise<void>): Promise<Pace> {
  const cpu = () => ({
    api: cpuMs(stack.processes.api.pid),
    postgres: cpuMs(stack.processes.postgres!.pid),
    caller: ownCpuMs(),
  });
  const before = cpu();
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const after = cpu();
  const each = (owner: (typeof cpuOwners)[number]) => ((after[owner] - before[owner]) * 1000) / count;
  return {
    perSecond: count / seconds,
    cpuUs: { api: each('api'), postgres: each('postgres'), caller: each('caller') },
  };
}

function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The same name gives the same devices. */
async function importDevices(stack: Stack, rows: number, name: string): Promise<void> {
  const audience = { name, devices: rows, providers: ['fcm'] as const, deadPercent: 0, transientPercent: 0 };
  const result = await createApiClient(stack.apiUrl, stack.apiKey!).importDevices(
    withTokensOf(name, demoDevices(audience)),
  );
  if (result.imported !== rows || result.failed > 0) throw new Error(`the import took ${JSON.stringify(result)}`);
}

/** The demo's tokens are the same for every name: those of a new device would move to it from another. */
function* withTokensOf(name: string, devices: Iterable<object>): Generator<object> {
  for (const device of devices)
    yield { ...device, device_token: `${(device as { device_token: string }).device_token}${name}` };
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

  /** Requests for the devices from `first` on, as many at once as there are connections. */
  async send(first: number, requests: number, one: (n: number) => Promise<void>): Promise<void> {
    let next = first;
    const runner = async () => {
      while (next < first + requests) await one(next++);
    };
    await Promise.all(Array.from({ length: connections }, runner));
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
