import type { MetricsAddress } from '../domain/config.ts';
import type { Logger } from '../domain/logger.ts';
import { metricsUrl } from './metrics-url.ts';

interface Deno {
  serve(
    options: {
      hostname: string;
      port: number;
      signal: AbortSignal;
      onListen(address: { hostname: string; port: number }): void;
    },
    handler: (request: Request) => Promise<Response>,
  ): unknown;
}

/** As `serve.node.ts`, on Deno. */
export function serveMetrics(
  { host, port }: MetricsAddress,
  answer: (request: Request) => Promise<Response>,
  log: Logger,
): () => void {
  const ending = new AbortController();
  const { Deno: deno } = globalThis as unknown as { Deno: Deno };
  const onListen = ({ hostname, port }: { hostname: string; port: number }) =>
    log.info({ address: hostname, port }, `metrics: ${metricsUrl(hostname, port)}`);
  try {
    deno.serve({ hostname: host, port, signal: ending.signal, onListen }, answer);
  } catch (err) {
    log.error({ err, host, port }, 'metrics cannot be served');
  }
  return () => ending.abort();
}
