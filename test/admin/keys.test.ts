import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { findApiKeyOfAnyApp } from '../../db/api-keys.ts';
import { scopes } from '../../domain/scopes.ts';
import { projectRoot } from '../../local/paths.ts';
import { createOperator, type Operator } from './operator.ts';

let operator: Operator;
before(async () => {
  operator = await createOperator();
});
after(() => operator.close());

const nobody = '019c0000-0000-7000-8000-000000000000';

test('npm run admin prints a new key alone, which may do what its scopes say and is in no other place', async () => {
  const { database, run } = operator;
  const args = ['keys', 'create', '--app', 'default', '--name', 'backend', '--scopes', 'devices:write,messages:send'];
  const made = spawnSync('npm', ['run', '--silent', 'admin', '--', ...args, '--expires-in', '90d'], {
    ...{ cwd: projectRoot, encoding: 'utf8' },
    env: { PATH: process.env.PATH, HOME: process.env.HOME, DATABASE_URL: database.url },
  });
  assert.match(made.stdout, /^ck_[\w-]{43}\n$/, made.stderr);
  const plainKey = made.stdout.trim();
  const key = await findApiKeyOfAnyApp(database.db, plainKey);
  assert.deepEqual([key?.app?.name, key?.scopes], ['default', ['devices:write', 'messages:send']]);
  const days = key!.expiresInMs! / 86_400_000;
  assert.ok(days > 89 && days <= 90, `${days}`);

  const listed = (await run(['keys', 'list', '--app', 'default'])).stdout;
  assert.match(listed, new RegExp(`\\n${key!.id} +backend +devices:write,messages:send .* valid\\n$`));
  const everything = listed + made.stderr + JSON.stringify(await operator.audit());
  assert.ok(!everything.includes(plainKey.slice(3)));
});

test('a key is replaced and both live on for the overlap; a revoked one is refused, as often as one likes', async () => {
  const { json, run, database } = operator;
  const old = await json(['keys', 'create', '--app', 'default', '--name', 'old', '--scopes', 'devices:read']);
  const next = await json(['keys', 'rotate', '--app', 'default', old.id, '--overlap', '1h']);
  assert.deepEqual([next.name, next.scopes, next.expires_at], ['old', ['devices:read'], null]);
  const overlap = (await findApiKeyOfAnyApp(database.db, old.key))!.expiresInMs!;
  assert.ok(overlap > 3_000_000 && overlap <= 3_600_000, `${overlap}`);
  for (let i = 0; i < 2; i++) {
    assert.deepEqual(await json(['keys', 'revoke', '--app', 'default', next.id]), { id: next.id });
  }
  assert.equal(await findApiKeyOfAnyApp(database.db, next.key), undefined);
  assert.match(
    (await run(['keys', 'rotate', '--app', 'default', next.id])).stderr,
    /^The key is revoked or has expired/,
  );
});

test("an administrator's key is of no app, and is looked after as the others are", async () => {
  const { json, database } = operator;
  const made = await json(['keys', 'create', '--admin', '--name', 'root', '--as', 'ada']);
  const found = await findApiKeyOfAnyApp(database.db, made.key);
  assert.deepEqual([found?.app, found?.scopes], [undefined, scopes]);
  const narrow = await json(['keys', 'create', '--admin', '--name', 'narrow', '--scopes', 'devices:read']);
  assert.deepEqual(narrow.scopes, ['devices:read', 'admin']);
  const next = await json(['keys', 'rotate', '--admin', narrow.id, '--as', 'ada']);
  await json(['keys', 'revoke', '--admin', next.id, '--as', 'ada']);

  const listed: { name: string; revoked_at: string | null }[] = await json(['keys', 'list', '--admin']);
  assert.deepEqual(
    listed.map(({ name, revoked_at }) => [name, revoked_at !== null]),
    [
      ['narrow', true],
      ['narrow', false],
      ['root', false],
    ],
  );
  const told = (await operator.audit()).filter(({ actor }) => actor === 'ada');
  assert.deepEqual(
    told.map(({ action, target_id }) => [action, target_id]),
    [
      ['key.create', made.id],
      ['key.rotate', narrow.id],
      ['key.revoke', next.id],
    ],
  );
});

test('a key of another kind, of nobody, or with scopes that are none, is refused by the name of the option', async () => {
  const create = ['keys', 'create', '--name', 'x'];
  const wrong: [string[], number, RegExp][] = [
    [create, 2, /^--app <name> or --admin is needed/],
    [[...create, '--app', 'default'], 2, /^--scopes is needed with --app/],
    [[...create, '--app', 'default', '--admin'], 2, /^Option '--admin' cannot be used with option '--app/],
    [[...create, '--app', 'default', '--scopes', 'admin'], 2, /^--scopes: /],
    [[...create, '--app', 'default', '--scopes', '*'], 2, /"\*" is not one of devices:read, /],
    [
      [...create, '--app', 'nowhere', '--scopes', 'devices:read'],
      1,
      /^There is no such app\. `npm run admin -- apps list`/,
    ],
    [[...create, '--admin', '--expires-at', '2020-01-01'], 2, /^--expires-at: Is in the past/],
    [[...create, '--admin', '--requests-per-second', '0'], 2, /^--requests-per-second: /],
    [['keys', 'revoke', '--admin', nobody], 1, /^There is no such key\./],
    [['keys', 'revoke', '--app', 'default', 'x'], 1, /^There is no such key\./],
  ];
  for (const [args, code, sentence] of wrong) {
    const { status, stdout, stderr } = await operator.run(args);
    assert.deepEqual([status, stdout], [code, ''], args.join(' '));
    assert.match(stderr, sentence);
    assert.doesNotMatch(stderr, /\n\s+at /, 'no stack trace');
  }
});
