/**
 * `npm run test:deno`: what must work on Deno too, run by Deno. `test/deno/`, the short suite of the API, against a real
 * PostgreSQL and a real Temporal, which are started for it as for `npm test`; `test/http2/`, the whole suite of the HTTP/2
 * client, less one test about a broken key, with which Deno's sockets connect all the same. Arguments go to `deno test`.
 */
import { spawn } from 'node:child_process';
import { stopSignal } from '../domain/stop-signal.ts';
import { projectRoot } from '../local/paths.ts';
import { testEnvironment } from './support/environment.ts';
import { startTestPostgres, startTestRun, startTestTemporal } from './support/services.ts';

const permissions = ['net', 'env', 'read', 'write', 'sys', 'run'].map((name) => `--allow-${name}`);

const stopping = stopSignal();
const run = startTestRun();
let exitCode = 1;
try {
  const [postgres, temporal] = await Promise.all([startTestPostgres(run), startTestTemporal(run)]);
  const args = ['test', '--no-check', ...permissions, ...process.argv.slice(2), 'test/deno/', 'test/http2/'];
  const child = spawn('node_modules/.bin/deno', args, {
    cwd: projectRoot,
    stdio: 'inherit',
    env: {
      ...process.env,
      [testEnvironment.databaseAdminUrl]: postgres.adminUrl,
      [testEnvironment.temporalAddress]: temporal.address,
      [testEnvironment.directory]: run.directory,
    },
  });
  run.leash.hold(child.pid!, 'SIGTERM', 1_000);
  stopping.addEventListener('abort', () => child.kill('SIGTERM'));
  exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
} finally {
  await run.leash.end();
}
process.exit(exitCode);
