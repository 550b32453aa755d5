import process from 'node:process';
import { composeApi } from './compose.ts';

/** The same app for `deno serve`, which opens the port itself (`--host`, `--port`). */
const { app, log, stop, close } = await composeApi(process.env);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, async () => {
    stop();
    await close();
    process.exit(0);
  });
}
log.info({ pid: process.pid }, 'ready');

export default { fetch: (request: Request) => app.fetch(request) };
