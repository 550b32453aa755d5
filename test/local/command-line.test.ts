import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { projectRoot } from '../../local/paths.ts';

function run(...args: string[]): { status: number | null; stderr: string; stdout: string } {
  const { status, stderr, stdout } = spawnSync(process.execPath, args, {
    cwd: projectRoot,
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
  return { status, stderr, stdout };
}

const fixture = 'test/local/command-line-fixture.ts';

test('arguments that nobody knows or that cannot be used are refused with one sentence, the usage and status 2', () => {
  const wrong: [string[], string][] = [
    [['--workers', '0'], '--workers must be a whole number from 1 to 64, not "0".'],
    [['--workers', 'abc'], '--workers must be a whole number from 1 to 64, not "abc".'],
    [['--workers', '1e1'], '--workers must be a whole number from 1 to 64, not "1e1".'],
    [['--workers='], '--workers must be a whole number from 1 to 64, not "".'],
    [['--workers'], "Option '--workers <value>' argument missing."],
    [['--workers', '-1'], "Option '--workers' argument is ambiguous."],
    [['--size', '499'], '--size must be a whole number of at least 500, not "499".'],
    [['--dead', '101'], '--dead must be a number from 0 to 100, not "101".'],
    [['--parts', 'apns,sms'], '--parts: "sms" is not one of apns, fcm.'],
    [['--colour'], "Unknown option '--colour'."],
    [['--json=yes'], "Option '--json' does not take an argument."],
    [['one', 'two'], '"two" is not expected here.'],
  ];
  for (const [args, sentence] of wrong) {
    const { status, stderr, stdout } = run(fixture, ...args);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.equal(stderr.replace(/Did you forget[^\n]*\n[^\n]*\n/, ''), `${sentence}\n\nfixture -- [options]\n`);
  }
  const right = run(fixture, '--workers', '2', '--size', '1_000', '--dead=0.5', '--parts=fcm', '--json', 'name');
  assert.deepEqual(JSON.parse(right.stdout), {
    numbers: [2, 1_000, 0.5],
    parts: ['fcm'],
    json: true,
    positionals: ['name'],
  });
  const help = run(fixture, '-h', '--workers', '0');
  assert.deepEqual([help.status, help.stdout], [0, 'fixture -- [options]\n']);
});

test('every program of the README checks its arguments', () => {
  for (const args of [
    ['local/start.ts', '--workers', '0'],
    ['local/demo.ts', '--devices', 'many'],
    ['bench/main.ts', '--only', 'engine,'],
    ['test/chaos/main.ts', '--seed', 'x'],
    ['simulator/main.ts', '--settings', '{'],
    ['db/migrate.ts', '--dry-run'],
    ['workflows/build.ts', 'a.js', 'b.js'],
    ['api/serve.node.ts', '--port', '9000'],
  ]) {
    const { status, stderr, stdout } = run(...args);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^.+\.\n\nnpm (run [a-z:-]+|start)/, args.join(' '));
    assert.doesNotMatch(stderr, /\n\s+at /, 'no stack trace');
  }
});
