import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { projectRoot } from '../../local/paths.ts';
import { createTestDatabase } from '../support/database.ts';

/** By npm, which finds the Node that is installed, whatever Node the machine has. */
function npmRun(script: string, databaseUrl: string) {
  return spawnSync('npm', ['run', '--silent', script], {
    cwd: projectRoot,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: process.env.HOME, DATABASE_URL: databaseUrl },
  });
}

test('npm run migrate says what it did, or in one line why it could not', async () => {
  const { url, close } = await createTestDatabase();
  assert.equal(npmRun('migrate', url).stdout, 'The database is up to date.\n');

  const wrong = new URL(url);
  wrong.pathname = '/nowhere';
  const { status, stderr } = npmRun('migrate', wrong.href);
  assert.equal(status, 1);
  assert.match(stderr, /^The database is not up to date: database "nowhere" does not exist \(3D000\)/);
  assert.doesNotMatch(stderr, /\n\s+at /, 'no stack trace');
  await close();
});
