import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { MetricsAddress } from '../domain/config.ts';
import type { Logger } from '../domain/logger.ts';
import { metricsUrl } from './metrics-url.ts';

/** Somebody who asks again and again must not use up the process's sockets. */
const maxConnections = 20;
const requestMs = 5_000;

/**
 * Serves metrics by a port of their own, on Node. Nothing that goes wrong here is a reason to stop: a port that is taken is logged, and
 * the process goes on without.
 * @returns ends it, and whoever is asking
 */
export function serveMetrics(
  { host, port }: MetricsAddress,
  answer: (request: Request) => Promise<Response>,
  log: Logger,
): () => void {
  const server = createServer(
    { headersTimeout: requestMs, requestTimeout: requestMs, keepAliveTimeout: 30_000 },
    (incoming, outgoing) => {
      const { method = 'GET', url = '/', headers } = incoming;
      const respond = async () => {
        const request = new Request(new URL(url.startsWith('/') ? url : '/', 'http://metrics'), {
          method,
          headers: { accept: headers.accept ?? '' },
        });
        const response = await answer(request);
        outgoing.writeHead(response.status, Object.fromEntries(response.headers));
        outgoing.end(method === 'HEAD' ? undefined : await response.text());
      };
      incoming.resume();
      respond().catch((err: unknown) => {
        log.warn({ err }, 'metrics could not be told');
        outgoing.destroy();
      });
    },
  );
  server.maxConnections = maxConnections;
  server.on('error', (err) => log.error({ err, host, port }, 'metrics cannot be served'));
  server.listen(port, host, () => {
    const { address, port } = server.address() as AddressInfo;
    log.info({ address, port }, `metrics: ${metricsUrl(address, port)}`);
  });
  server.unref();
  return () => {
    server.close();
    server.closeAllConnections();
  };
}
