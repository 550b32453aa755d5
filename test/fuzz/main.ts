/**
 * `npm run fuzz`: checks the API against its own OpenAPI document with an outside reader of it, schemathesis. Starts PostgreSQL,
 * Temporal and the API for it and leaves nothing behind. Exit status 0: schemathesis found nothing, or the run was skipped (with
 * a line that says so) because Python is missing or schemathesis cannot be installed.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { acceptMessages } from '../../db/accept-messages.ts';
import { insertApiKey } from '../../db/api-keys.ts';
import { connect } from '../../db/connect.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { scopes } from '../../domain/scopes.ts';
import { stopSignal } from '../../domain/stop-signal.ts';
import { startReadyChild } from '../../local/child.ts';
import { projectRoot, stateDirectory } from '../../local/paths.ts';
import { findFreePort } from '../../local/ports.ts';
import { isApiReady } from '../../local/readiness.ts';
import {
  databaseUrl,
  startTestPostgres,
  startTestRun,
  startTestTemporal,
  type TestRun,
  templateDatabase,
} from '../support/services.ts';

const requirements = path.join(import.meta.dirname, 'requirements.txt');
const schemathesis = installSchemathesis();
const stopping = stopSignal();
const run = startTestRun();
let exitCode = 1;
try {
  const { url, key } = await startApi(run);
  exitCode = await fuzz(run, url, key);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
} finally {
  await run.leash.end();
}
process.exit(exitCode);

/** Installs into a folder of its own, once for each list of requirements. @returns the program */
function installSchemathesis(): string {
  const python = ['python3', 'python'].find((name) => isNewPython(name));
  if (!python) {
    console.log('SKIPPED: the fuzzer needs Python 3.10 or newer with venv, and there is none here.');
    process.exit(0);
  }
  const hash = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12);
  const directory = path.join(stateDirectory, `fuzz-${hash}`);
  const program = path.join(directory, 'bin', 'schemathesis');
  if (existsSync(program)) return program;
  rmSync(directory, { recursive: true, force: true });
  console.log('Installing schemathesis …');
  for (const [command, ...args] of [
    [python, '-m', 'venv', directory],
    [path.join(directory, 'bin', 'pip'), 'install', '--quiet', '--disable-pip-version-check', '-r', requirements],
  ]) {
    const { status, error } = spawnSync(command!, args, { stdio: 'inherit', timeout: 180_000 });
    if (status === 0) continue;
    rmSync(directory, { recursive: true, force: true });
    const reason = error?.message ?? `${command} ended with status ${status}`;
    console.log(`SKIPPED: schemathesis, the fuzzer, could not be installed: ${reason}.`);
    process.exit(0);
  }
  return program;
}

function isNewPython(name: string): boolean {
  const check = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))';
  return spawnSync(name, ['-c', check], { stdio: 'ignore' }).status === 0;
}

async function startApi(run: TestRun): Promise<{ url: string; key: string }> {
  const [postgres, temporal, port] = await Promise.all([
    startTestPostgres(run),
    startTestTemporal(run),
    findFreePort(),
  ]);
  const database = databaseUrl(postgres.adminUrl, templateDatabase);
  const { db, pool } = connect(database, { maxConnections: 1 });
  const key = await insertApiKey(db, { appId: null, name: 'fuzz', scopes });
  // The objects that the document's examples name, so that the examples meet something.
  await insertNotification(db, {
    id: '019c0000-0000-7000-8000-000000000000',
    appId: 1,
    title: 'Example',
    message: { title: 'Example' },
    audience: {},
    inDoubtPolicy: 'redeliver',
    ratePerSecond: null,
  });
  await acceptMessages(pool, [
    {
      id: '019c0000-0000-7000-8000-000000000000',
      appId: 1,
      message: { title: 'Example' },
      to: { userId: 'user-17' },
      inDoubtPolicy: 'redeliver',
      idempotency: undefined,
    },
  ]);
  await db.destroy();
  const url = `http://127.0.0.1:${port}`;
  await startReadyChild(
    {
      name: 'API',
      command: process.execPath,
      args: ['api/serve.node.ts'],
      cwd: projectRoot,
      env: {
        ...process.env,
        DATABASE_URL: database,
        TEMPORAL_ADDRESS: temporal.address,
        LOG_LEVEL: 'error',
        HOST: '127.0.0.1',
        PORT: String(port),
      },
      logFile: path.join(run.directory, 'api.log'),
      leash: run.leash,
    },
    () => isApiReady(url),
    30_000,
  );
  return { url, key };
}

/** @returns the exit status of schemathesis */
function fuzz(run: TestRun, url: string, key: string): Promise<number> {
  const fixed = ['--generation-deterministic', '--no-color'];
  const bounds = ['--max-examples=25', '--max-time=80', '--request-timeout=10'];
  const config = ['--config-file', path.join(import.meta.dirname, 'schemathesis.toml')];
  const args = [
    ...config,
    'run',
    `${url}/openapi.json`,
    '--header',
    `Authorization: Bearer ${key}`,
    '--header',
    'Carillon-App: default',
    '--checks=all',
    ...fixed,
  ];
  const child: ChildProcess = spawn(schemathesis, [...args, ...bounds, ...process.argv.slice(2)], {
    cwd: run.directory,
    stdio: 'inherit',
    detached: true,
    env: { ...process.env, SCHEMATHESIS_HOOKS: path.join(import.meta.dirname, 'hooks.py') },
  });
  run.leash.hold(child.pid!, 'SIGTERM', 1_000);
  stopping.addEventListener('abort', () => child.kill('SIGTERM'));
  return new Promise((resolve) => child.once('exit', (code) => resolve(code ?? 1)));
}
