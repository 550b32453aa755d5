/** Which function of `db/` sees which apps, read from its text: one that reads what belongs to an app is told the app, or says in its name that it is not. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { projectRoot } from '../../local/paths.ts';

/** A function or constant at the top of a file, with all of its text. */
interface Declaration {
  name: string;
  isExported: boolean;
  text: string;
}

const read = (file: string) => readFileSync(path.join(projectRoot, file), 'utf8');

/** Those with a column `app_id`, and the apps themselves. */
const tablesOfApps = readTables(read('db/schema.ts'));
const files = globSync('db/*.ts', { cwd: projectRoot, exclude: ['db/schema.ts'] });
const functions = files.flatMap((file) => queryFunctions(read(file)).map((found) => ({ file, ...found })));

/** What they are given was found within its app, or is held by a claim; or the word is a column's. */
const excused: Record<string, string> = {
  findAppByName: 'asks for the app itself',
  listAllApps: 'asks for the apps themselves',
  lockAppByName: 'asks for the app itself',
  conditionFilter: 'part of a statement that names the app',
  unreachableHosts: 'part of a statement that names the notification',
  auditBooks: 'a word: counts devices of one notification',
  countTotals: 'a word: counts devices of one notification',
  lockDevices: 'a word: locks rows of the registrations that it is given',
  probeDatabase: 'looks whether the table is there',
  hasUntriedDevices: 'of one notification',
  findPlan: 'of one notification',
  planNextPage: 'of one notification, whose app it reads',
  listAddresses: 'of the devices of a claimed batch',
  listOpenEnvironments: 'of the devices of a claimed batch',
  listDeferredEntries: 'of a claimed lane',
  returnReservedEntries: 'of a claimed lane',
  noteLaneSeen: 'of a claimed lane',
  leaveLane: 'of a claimed lane',
  migrations: 'makes the tables',
  providerMigrations: 'makes the tables',
  migrate: 'makes the tables',
};

test('every function that reads what belongs to an app is told the app, or says in its name that it is not', () => {
  const strangers = functions.filter(({ name, tables, takesApp }) => {
    return tables.length > 0 && !takesApp && !/Of(Any|All)Apps?$/.test(name) && excused[name] === undefined;
  });
  assert.deepEqual(
    strangers.map(({ file, name, tables }) => `${file}: ${name} reads ${tables.join(', ')}`),
    [],
  );
});

test('nothing is excused that is not there, or needs no excuse', () => {
  const strange = functions.filter(({ tables, takesApp }) => tables.length > 0 && !takesApp).map(({ name }) => name);
  assert.deepEqual(
    Object.keys(excused).filter((name) => !strange.includes(name)),
    [],
  );
});

describe('this test', () => {
  test('sees most of the tables and functions there are', () => {
    assert.ok(tablesOfApps.length >= 12, tablesOfApps.join());
    assert.ok(functions.filter(({ tables }) => tables.length > 0).length >= 60, `${functions.length}`);
  });

  test('finds a query without an app, also behind a function of the same file', () => {
    const text = `
export function listDevices(db: Db, appId: number) {
  return db.selectFrom('devices').where('app_id', '=', appId).execute();
}

export async function countAll(db: Db) {
  return (await count(db)).map((row) => ({ appId: row.app_id }));
}

const count = (db: Db) => sql\`select count(*) from devices\`.execute(db);
`;
    const found = queryFunctions(text).map(({ name, tables, takesApp }) => [name, tables.join(), takesApp]);
    assert.deepEqual(found, [
      ['listDevices', 'devices', true],
      ['countAll', 'devices', false],
    ]);
  });
});

function readTables(schema: string): string[] {
  const rows = [...schema.matchAll(/^ {2}(\w+): (\w+);$/gm)].map(([, table, row]) => ({ table: table!, row: row! }));
  const hasApp = (row: string) => new RegExp(`interface ${row}\\b[^}]*\\n {2}app_id:`).test(schema);
  return ['apps', ...rows.filter(({ row }) => hasApp(row)).map(({ table }) => table)];
}

function queryFunctions(text: string): { name: string; tables: string[]; takesApp: boolean }[] {
  const all = declarationsOf(text);
  return all
    .filter(({ isExported }) => isExported)
    .map(({ name, text }) => {
      const reached = withHelpers(text, all);
      // In statements alone: texts between quotes.
      const statements = [...reached.matchAll(/`[^`]*`|'[^'\n]*'/g)].map(([quoted]) => quoted).join('\n');
      const tables = tablesOfApps.filter((table) => new RegExp(`\\b${table}\\b`).test(statements));
      // What is read into a field that is answered is not told by the caller.
      const takesApp = /\bappIds?\b/.test(reached.replace(/\bappId: (\w+\.)?app_id\b/g, ''));
      return { name, tables, takesApp };
    });
}

function declarationsOf(text: string): Declaration[] {
  const head = /^(export )?(?:async )?(?:function|const|class) (\w+)/;
  const parts = text.split(/\n(?=(?:export |async |function |const |class |interface |type |\/\*\*|import ))/);
  return parts.flatMap((part) => {
    const found = head.exec(part);
    return found ? [{ name: found[2]!, isExported: found[1] !== undefined, text: part }] : [];
  });
}

/** The text of a declaration with that of all declarations of its file that it leads to. */
function withHelpers(text: string, all: Declaration[]): string {
  const reached = new Set([text]);
  for (const part of reached) {
    for (const other of all) if (new RegExp(`\\b${other.name}\\b`).test(part)) reached.add(other.text);
  }
  return [...reached].join('\n');
}
