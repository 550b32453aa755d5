import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import os from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { projectRoot } from '../../local/paths.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

export interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Somebody at a terminal, with a database of his own. */
export interface Operator {
  database: TestDatabase;
  /** Runs `npm run admin -- <args>`, without npm; `input` comes by standard input. */
  run(args: string[], how?: { input?: string | Uint8Array; env?: Record<string, string> }): Promise<Ran>;
  /** The same with `--json`, which must succeed: what it printed. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  json(args: string[], input?: string | Uint8Array): Promise<any>;
  /** All that was recorded, oldest first. */
  audit(): Promise<{ actor: string; action: string; target_id: string; changes: unknown }[]>;
  close(): Promise<void>;
}

const compileCache = path.join(os.tmpdir(), 'carillon-compile-cache');

export const masterKey = (id: string) => `${id}:${randomBytes(32).toString('base64')}`;

export async function createOperator(env: Record<string, string> = {}): Promise<Operator> {
  const database = await createTestDatabase();
  const run: Operator['run'] = async (args, { input = '', env: more = {} } = {}) => {
    const child = spawn(process.execPath, ['admin/main.ts', ...args], {
      cwd: projectRoot,
      // Most of a run is reading the program.
      env: { PATH: process.env.PATH, NODE_COMPILE_CACHE: compileCache, DATABASE_URL: database.url, ...env, ...more },
    });
    // A command that is refused ends before it reads.
    child.stdin.on('error', () => {}).end(input);
    const [stdout, stderr, [status]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    return { status, stdout, stderr };
  };
  return {
    database,
    run,
    async json(args, input = '') {
      const { status, stdout, stderr } = await run([...args, '--json'], { input });
      if (status !== 0) throw new Error(`${args.join(' ')}: ${stderr}`);
      return JSON.parse(stdout);
    },
    async audit() {
      const rows = database.db.selectFrom('audit_entries').selectAll().where('actor_kind', '=', 'operator');
      const found = await rows.orderBy('id').execute();
      return found.map(({ actor, action, target_id, changes }) => ({ actor, action, target_id, changes }));
    },
    close: () => database.close(),
  };
}
