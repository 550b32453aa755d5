import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { stopSignal } from '../domain/stop-signal.ts';
import { serveMetrics } from '../telemetry/serve.deno.ts';
import { composeApi, endWithReason } from './compose.ts';

/** Requests under way get this long once the process is asked to stop; streams end themselves at once. */
const drainMs = 10_000;
const streamsEndMs = 250;

/** The same app for `deno serve`, which opens the port itself (`--host`, `--port`) and hands out no way to close it. */
const { app, config, log, answerMetrics, stop, close } = await composeApi(
  process.env,
  (c) => c.env.remoteAddr?.hostname,
).catch(endWithReason);
const endMetrics = config.metrics && serveMetrics(config.metrics, answerMetrics, log);
let underWay = 0;

async function shutDown({ message }: Error): Promise<void> {
  log.info({ reason: message }, 'stopping');
  stop();
  const deadline = performance.now() + drainMs;
  while (underWay > 0 && performance.now() < deadline) await sleep(20);
  await sleep(streamsEndMs);
  endMetrics?.();
  await close();
  log.info({}, 'stopped');
  process.exit(0);
}

const stopped = stopSignal();
stopped.addEventListener('abort', () => void shutDown(stopped.reason));
log.info({}, 'ready');

export default {
  async fetch(request: Request, info: object): Promise<Response> {
    underWay++;
    try {
      return await app.fetch(request, info);
    } finally {
      underWay--;
    }
  },
};
