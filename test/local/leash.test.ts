import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { startLeash } from '../../local/leash-holder.ts';
import { isRunning } from '../../local/signals.ts';
import { lockState } from '../../local/state-lock.ts';
import { until } from '../support/until.ts';

const directories: string[] = [];
after(() => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

for (const kind of ['obedient', 'stubborn'] as const) {
  test(`kill -9 of the parent ends its ${kind} child, removes the folder and frees the lock`, async () => {
    const { directory, program, pid } = await startFixture(kind);
    assert.ok(isRunning(pid));
    await assert.rejects(lock(directory), /already runs on/);

    program.kill('SIGKILL');
    await once(program, 'exit');
    // Waits for the clean-up by itself.
    await lock(directory);

    assert.equal(isRunning(pid), false);
    assert.equal(existsSync(path.join(directory, 'temporary')), false);
  });
}

test('a terminal that sends Ctrl-C to the whole group reaches the parent alone', async () => {
  const { program, pid } = await startFixture('obedient', { detached: true });
  process.kill(-program.pid!, 'SIGINT');
  await once(program, 'exit');
  await until(() => !isRunning(pid));
});

async function lock(directory: string): Promise<void> {
  const leash = startLeash();
  try {
    await lockState(leash, directory);
  } finally {
    await leash.end();
  }
}

async function startFixture(
  kind: string,
  options: { detached?: boolean } = {},
): Promise<{ directory: string; program: ChildProcess; pid: number }> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-leash-'));
  directories.push(directory);
  const fixture = path.join(import.meta.dirname, 'leash-fixture.ts');
  const program = spawn(process.execPath, [fixture, directory, kind], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...options,
  });
  const [output] = await once(program.stdout, 'data');
  return { directory, program, pid: Number(String(output).trim()) };
}
