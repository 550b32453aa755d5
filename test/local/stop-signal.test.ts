import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { isRunning } from '../../local/signals.ts';
import packageJson from '../../package.json' with { type: 'json' };
import { getTestDirectory } from '../support/environment.ts';
import { until } from '../support/until.ts';

const fixture = path.join(import.meta.dirname, 'stop-signal-fixture.ts');

/** The fixture as `npm start` would be run: the command of that script with another program in it. */
async function npmStart(t: TestContext): Promise<{ npm: ChildProcess; pid: number; said(): string }> {
  const directory = mkdtempSync(path.join(await getTestDirectory(), 'npm-start-'));
  const start = packageJson.scripts.start.replace('node local/start.ts', `'${process.execPath}' '${fixture}'`);
  assert.match(start, /fixture/);
  writeFileSync(path.join(directory, 'package.json'), JSON.stringify({ scripts: { start } }));
  const npm = spawn('npm', ['start', '--silent'], { cwd: directory, stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  npm.stdout.setEncoding('utf8').on('data', (part) => {
    text += part;
  });
  await until(() => text.includes('running '), 'the program runs');
  const pid = Number(/running (\d+)/.exec(text)![1]);
  t.after(() => isRunning(pid) && process.kill(pid, 'SIGKILL'));
  return { npm, pid, said: () => text };
}

test('SIGTERM to npm ends the program in order, and npm waits for it', async (t) => {
  const { npm, pid, said } = await npmStart(t);
  npm.kill('SIGTERM');
  await once(npm, 'close');
  assert.match(said(), /stopping: Stopped by SIGTERM\nstopped\n/);
  assert.equal(isRunning(pid), false);
});

test('a program whose npm was killed ends in order by itself', async (t) => {
  const { npm, pid, said } = await npmStart(t);
  npm.kill('SIGKILL');
  await until(() => !isRunning(pid), 'the program ends');
  await until(() => said().includes('stopped'));
  assert.match(said(), /stopping: Stopped by the end of npm\nstopped\n/);
});

test('Ctrl-C, which npm hands on a second time, ends the program in order', async (t) => {
  const { npm, pid, said } = await npmStart(t);
  process.kill(pid, 'SIGINT');
  npm.kill('SIGINT');
  await once(npm, 'close');
  assert.match(said(), /stopping: Stopped by SIGINT\nstopped\n/);
});
