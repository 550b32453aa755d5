import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
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
  run(args: string[], how?: { input?: string | Uint8Array; env?: Record<string, string> }): Ran;
  /** The same with `--json`, which must succeed: what it printed. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  json(args: string[], input?: string | Uint8Array): any;
  /** All that was recorded, oldest first. */
  audit(): Promise<{ actor: string; action: string; target_id: string; changes: unknown }[]>;
  close(): Promise<void>;
}

export const masterKey = (id: string) => `${id}:${randomBytes(32).toString('base64')}`;

export async function createOperator(env: Record<string, string> = {}): Promise<Operator> {
  const database = await createTestDatabase();
  const run: Operator['run'] = (args, { input = '', env: more = {} } = {}) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['admin/main.ts', ...args], {
      ...{ cwd: projectRoot, input, encoding: 'utf8' as const },
      env: { PATH: process.env.PATH, DATABASE_URL: database.url, ...env, ...more },
    });
    return { status, stdout, stderr };
  };
  return {
    database,
    run,
    json(args, input = '') {
      const { status, stdout, stderr } = run([...args, '--json'], { input });
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
