import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { localDatabaseFile } from '../../admin/local-files.ts';
import { runDemoSend } from '../../local/demo-send.ts';
import { isRunning } from '../../local/signals.ts';
import { startStack } from '../../local/stack.ts';

test('a send through the whole stack ends with books that balance and a ledger that agrees', async (t) => {
  const stack = await startStack({
    directory: mkdtempSync(path.join(os.tmpdir(), 'carillon-e2e-')),
    isTemporary: true,
    ports: 'free',
    hasWebUi: false,
    env: {
      CARILLON_BATCH_SIZE: '1000',
      CARILLON_RETRY_BASE_MS: '500',
      CARILLON_RETRY_MAX_MS: '1000',
      LOG_LEVEL: 'warn',
    },
  });
  t.after(() => stack.stop());
  const said = path.join(stack.logDirectory, '..', path.basename(localDatabaseFile));
  assert.equal(readFileSync(said, 'utf8'), stack.databaseUrl, 'npm run admin finds the database');

  const { report, problems } = await runDemoSend(stack, {
    devices: 5_000,
    providers: ['apns', 'fcm'],
    deadPercent: 3,
    transientPercent: 2,
  });

  assert.deepEqual(problems, []);
  assert.equal(report.ledger.distinct_accepted, report.outcomes.accepted);
  assert.equal(report.ledger.repeats, 0);
  assert.equal((report.outcomes.accepted ?? 0) + (report.outcomes.unregistered ?? 0), 5_000);
});

test('kill -9 of the program that holds the stack leaves nothing that blocks the next start, and loses no data', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-e2e-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));

  const first = await startFixture(directory);
  assert.ok(first.apiKey);
  first.program.kill('SIGKILL');
  await once(first.program, 'exit');
  const second = await startFixture(directory);
  t.after(() => second.program.kill('SIGTERM'));

  assert.deepEqual(first.pids.filter(isRunning), []);
  assert.equal(second.apiKey, null, 'the key of the first start is still there, so none is made');
});

async function startFixture(directory: string) {
  const program = spawn(process.execPath, [path.join(import.meta.dirname, 'stack-fixture.ts'), directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [output] = await Promise.race([
    once(program.stdout, 'data'),
    once(program, 'exit').then(([code]) => assert.fail(`the stack ended with exit code ${code}`)),
  ]);
  const { pids, apiKey } = JSON.parse(String(output)) as { pids: number[]; apiKey: string | null };
  return { program, pids, apiKey };
}
