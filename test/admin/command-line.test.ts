import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { Command } from 'commander';
import { localDatabaseFile } from '../../admin/local-files.ts';
import { createProgram } from '../../admin/program.ts';
import { createOperator, type Operator } from './operator.ts';

let operator: Operator;
before(async () => {
  operator = await createOperator();
});
after(() => operator.close());

test('the help of every command shows an example, and no option that takes a secret itself', () => {
  const actions = leavesOf(createProgram());
  assert.ok(actions.length >= 18, `${actions.length}`);
  for (const [path, command] of actions) {
    const help = helpOf(command);
    assert.match(help, new RegExp(`\\nExample: npm run admin -- ${path}( |\\n)`), path);
    assert.ok(help.includes('--json') && help.includes('--as <name>'), path);
    // A password, a key: by file alone.
    for (const { flags } of command.options) {
      if (/password|secret|apns-key|certificate|account/.test(flags)) assert.match(flags, / <file>$/, path);
    }
  }
});

test('help is no fault; a word, an option or an argument that is not known is one, of the command line', async () => {
  const help = await operator.run(['keys', 'create', '--help']);
  assert.deepEqual([help.status, help.stderr], [0, '']);
  assert.match(help.stdout, /^Usage: npm run admin -- keys create \[options\]\n/);
  const wrong: [string[], RegExp][] = [
    [['app', 'list'], /^Unknown command 'app'/],
    [['apps', 'list', '--colour'], /^Unknown option '--colour'\./],
    [['apps', 'show'], /^Missing required argument 'name'\./],
    [['apps', 'list', 'all'], /^Too many arguments/],
    [['apps', 'list', '--as', ''], /^Option '--as <name>' .* Must not be empty\./],
  ];
  for (const [args, sentence] of wrong) {
    const { status, stdout, stderr } = await operator.run(args);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, sentence);
  }
});

test('without its database it says in one line what to do', async (t) => {
  const nowhere = new URL(operator.database.url);
  nowhere.pathname = '/nowhere';
  const wrong: [Record<string, string>, RegExp][] = [
    [{ DATABASE_URL: nowhere.href }, /^The database cannot be used: database "nowhere" does not exist \(3D000\)/],
    [
      { DATABASE_URL: 'postgres://u:secret@127.0.0.1:1/x' },
      /^The database cannot be used: nothing listens .*DATABASE_URL/,
    ],
    [{ CARILLON_MASTER_KEYS: 'secret' }, /^Configuration: CARILLON_MASTER_KEYS: key 1 is not <id>:<base64/],
  ];
  if (existsSync(localDatabaseFile)) t.diagnostic('npm start runs here, so a database is found');
  else wrong.push([{ DATABASE_URL: '' }, /^DATABASE_URL is not set, and `npm start` does not run here\./]);
  for (const [env, sentence] of wrong) {
    const { status, stdout, stderr } = await operator.run(['apps', 'list'], { env });
    assert.deepEqual([status, stdout], [1, ''], stderr);
    assert.match(stderr, sentence);
    assert.match(stderr, /^[^\n]+\n$/, 'one line');
    assert.doesNotMatch(stderr, /secret/);
  }
});

/** Every command that does something, by its words. */
function leavesOf(command: Command, path: string[] = []): [string, Command][] {
  if (command.commands.length === 0) return [[path.join(' '), command]];
  return command.commands.flatMap((one) => leavesOf(one, [...path, one.name()]));
}

function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({ writeOut: (more) => (text += more) });
  command.outputHelp();
  return text;
}
