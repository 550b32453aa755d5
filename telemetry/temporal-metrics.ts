import { once } from 'node:events';
import { createServer } from 'node:net';
import { readFamilies } from './exposition.ts';
import type { MetricsSource } from './handler.ts';

const deadlineMs = 3_000;

/** What Temporal's SDK counts is served by the SDK alone, in Prometheus's own format, and told on with the rest. */
export function temporalMetrics(address: string): MetricsSource {
  return async () => {
    const answer = await fetch(`http://${address}/metrics`, { signal: AbortSignal.timeout(deadlineMs) });
    if (!answer.ok) throw new Error(`Temporal's SDK answered ${answer.status}`);
    // One of its counters has a name that ends so already.
    return readFamilies((await answer.text()).replaceAll('_total_total', '_total'));
  };
}

/** An address of this machine alone that was free a moment ago: the SDK does not tell which port it was given. */
export async function freeLoopbackAddress(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}
