import type { Server } from 'node:http';
import process from 'node:process';
import { serve } from '@hono/node-server';
import { composeApi } from './compose.ts';

/** Requests under way get this long once the process is asked to stop. */
const drainMs = 10_000;

const { app, config, log, stop, close } = await composeApi(process.env);
const server = serve(
  {
    fetch: app.fetch,
    hostname: config.api.host,
    port: config.api.port,
    serverOptions: {
      headersTimeout: 15_000,
      // Bodies have limits of their own: an import may take hours, everything else 30 s.
      requestTimeout: 0,
      keepAliveTimeout: 65_000,
    },
  },
  ({ address, port }) => log.info({ address, port, pid: process.pid }, `ready: http://${config.api.host}:${port}`),
) as Server;

server.on('error', (err) => {
  log.error({ err }, 'the API cannot listen');
  process.exit(1);
});

async function shutDown(signal: string): Promise<void> {
  log.info({ signal }, 'stopping');
  stop();
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), drainMs);
  await closed;
  clearTimeout(timer);
  await close();
  log.info({}, 'stopped');
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void shutDown(signal));
}
