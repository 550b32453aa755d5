/**
 * `npm test`: starts PostgreSQL and Temporal once, on free ports, in a folder of its own, runs the test files and leaves
 * nothing behind. Arguments pick files: paths of files or folders, or a part of a path (`npm test -- http2`); what
 * starts with `-` goes to Node's test runner.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import path from 'node:path';
import { stopSignal } from '../domain/stop-signal.ts';
import { projectRoot } from '../local/paths.ts';
import { testEnvironment } from './support/environment.ts';
import { startTestPostgres, startTestRun, startTestTemporal } from './support/services.ts';

/** One file at a time beside the servers keeps two cores busy without making tests late. */
const concurrency = process.env.CARILLON_TEST_CONCURRENCY ?? '2';
const testTimeoutMs = 180_000;
const runTimeoutMs = 18 * 60_000;

const flags = process.argv.slice(2).filter((argument) => argument.startsWith('-'));
const files = selectFiles(process.argv.slice(2).filter((argument) => !argument.startsWith('-')));
if (files.length === 0) {
  console.error('No test file matches.');
  process.exit(1);
}

const stopping = stopSignal();
const startedAt = performance.now();
const run = startTestRun();
let failure: string | undefined;
let exitCode = 1;
try {
  const [postgres, temporal] = await Promise.all([startTestPostgres(run), startTestTemporal(run)]);
  console.log(`PostgreSQL and Temporal took ${((performance.now() - startedAt) / 1000).toFixed(1)} s to start.`);
  exitCode = await runFiles({
    [testEnvironment.databaseAdminUrl]: postgres.adminUrl,
    [testEnvironment.temporalAddress]: temporal.address,
    [testEnvironment.directory]: run.directory,
  });
} catch (error) {
  failure = error instanceof Error ? error.message : String(error);
} finally {
  await run.leash.end();
}
if (failure) console.error(failure);
process.exit(exitCode);

function selectFiles(wanted: string[]): string[] {
  const all = globSync('test/**/*.test.ts', { cwd: projectRoot }).sort();
  if (wanted.length === 0) return all;
  const parts = wanted.map((part) => {
    const relative = path.relative(projectRoot, path.resolve(part));
    return relative.startsWith('..') ? part : relative;
  });
  return all.filter((file) => parts.some((part) => file.includes(part)) || wanted.some((part) => file.includes(part)));
}

/** @returns the exit status of Node's test runner */
async function runFiles(servers: Record<string, string>): Promise<number> {
  const args = ['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${testTimeoutMs}`];
  const child = spawn(process.execPath, [...args, '--test-reporter=spec', ...flags, ...files], {
    cwd: projectRoot,
    stdio: 'inherit',
    detached: true,
    // What tests put into the temporary folder goes with this run, also when they are killed.
    env: { ...withoutOwnSettings(process.env), ...servers, TMPDIR: run.directory },
  });
  run.leash.hold(child.pid!, 'SIGTERM', 1_000);
  stopping.addEventListener('abort', () => child.kill('SIGTERM'));
  const limit = setTimeout(() => {
    failure = `The tests took longer than ${runTimeoutMs / 60_000} minutes and were ended.`;
    child.kill('SIGTERM');
  }, runTimeoutMs);
  const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  clearTimeout(limit);
  return failure ? 1 : (code ?? 1);
}

/** A developer's settings for real servers and real credentials have no business in tests. */
function withoutOwnSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const isOwn = (name: string) => /^(DATABASE_|TEMPORAL_(?!CLI$)|APNS_|FCM_|AWS_|CARILLON_|LOG_LEVEL$)/.test(name);
  return Object.fromEntries(Object.entries(env).filter(([name]) => !isOwn(name)));
}
