import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { findApiKey } from '../../db/api-keys.ts';
import { appScopes } from '../../domain/scopes.ts';
import { projectRoot } from '../../local/paths.ts';
import { createTestDatabase } from '../support/database.ts';

/** By npm, which finds the Node that is installed, whatever Node the machine has. */
function npmRun(script: string, databaseUrl: string, ...args: string[]) {
  return spawnSync('npm', ['run', '--silent', script, '--', ...args], {
    cwd: projectRoot,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: process.env.HOME, DATABASE_URL: databaseUrl },
  });
}

test('npm run api-key makes one more key and prints nothing else; npm run migrate says what it did', async () => {
  const { db, url, close } = await createTestDatabase();
  const made = npmRun('api-key', url, 'a second key');
  assert.match(made.stdout, /^ck_[\w-]{43}\n$/);
  const key = await findApiKey(db, made.stdout.trim());
  assert.deepEqual([key?.app?.name, key?.scopes], ['default', appScopes]);
  assert.equal(npmRun('migrate', url).stdout, 'The database is up to date.\n');

  const wrong = new URL(url);
  wrong.pathname = '/nowhere';
  for (const script of ['api-key', 'migrate']) {
    const { status, stderr } = npmRun(script, wrong.href);
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^(No key was made|The database is not up to date): database "nowhere" does not exist \(3D000\)/,
    );
    assert.doesNotMatch(stderr, /\n\s+at /, 'no stack trace');
  }
  await close();
});
