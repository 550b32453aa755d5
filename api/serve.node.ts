import type { Server } from 'node:http';
import process from 'node:process';
import { serve } from '@hono/node-server';
import { getConnInfo } from '@hono/node-server/conninfo';
import { readCommandLine } from '../domain/command-line.ts';
import { stopSignal } from '../domain/stop-signal.ts';
import { serveMetrics } from '../telemetry/serve.node.ts';
import { composeApi, endWithReason } from './compose.ts';

/** Requests under way get this long once the process is asked to stop. */
const drainMs = 10_000;

readCommandLine(
  'npm run start:api\n\n  Takes no arguments: HOST, PORT and every other setting come from the environment.',
  {},
);
const { app, config, log, answerMetrics, stop, close } = await composeApi(
  process.env,
  (c) => getConnInfo(c).remote.address,
).catch(endWithReason);
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
  ({ address, port }) => log.info({ address, port }, `ready: http://${config.api.host}:${port}`),
) as Server;
const endMetrics = config.metrics && serveMetrics(config.metrics, answerMetrics, log);

server.on('error', (err) => {
  log.error({ err }, 'the API cannot listen');
  process.exit(1);
});

async function shutDown({ message }: Error): Promise<void> {
  log.info({ reason: message }, 'stopping');
  stop();
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // A connection goes idle when its last answer is out, which may be after this moment.
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  const timer = setTimeout(() => server.closeAllConnections(), drainMs);
  await closed;
  clearInterval(idle);
  clearTimeout(timer);
  endMetrics?.();
  await close();
  log.info({}, 'stopped');
  // A call to Temporal that was given up may hold its timer for another second.
  process.exit(0);
}

const stopped = stopSignal();
stopped.addEventListener('abort', () => void shutDown(stopped.reason));
