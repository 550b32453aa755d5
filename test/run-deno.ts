/**
 * `npm run test:deno`: the short suite of `test/deno/`, run by Deno against a real PostgreSQL and a real Temporal, which are
 * started for it as for `npm test`. Arguments go to `deno test`.
 */
import { spawn } from 'node:child_process';
import { projectRoot } from '../local/paths.ts';
import { testEnvironment } from './support/environment.ts';
import { startTestPostgres, startTestRun, startTestTemporal } from './support/services.ts';

const permissions = ['net', 'env', 'read', 'sys', 'run'].map((name) => `--allow-${name}`);

const run = startTestRun();
let exitCode = 1;
try {
  const [postgres, temporal] = await Promise.all([startTestPostgres(run), startTestTemporal(run)]);
  const args = ['test', '--no-check', ...permissions, ...process.argv.slice(2), 'test/deno/'];
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
  exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
} finally {
  await run.leash.end();
}
process.exit(exitCode);
