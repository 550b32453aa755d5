/** The arrows of the folder table in `docs/architecture.md`, read from the table itself: the code must keep to them. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { projectRoot } from '../local/paths.ts';

/** `types`: by `import type` only. `rules`: only what leads to no HTTP/2 client when it is loaded. */
type Kind = 'anything' | 'rules' | 'types';

interface Import {
  /** Paths of files, from the root of the project. */
  from: string;
  to: string;
  isType: boolean;
  /** By `import()`: loaded when it is asked for. */
  isDynamic: boolean;
}

const read = (file: string) => readFileSync(path.join(projectRoot, file), 'utf8');
const folderOf = (file: string) => file.split('/')[0]!;

const allowed = readFolderTable(read('docs/architecture.md'));
const files = globSync('*/**/*.{ts,mjs}', { cwd: projectRoot, exclude: ['**/node_modules'] });
const imports = files.flatMap((file) => importsOf(file, read(file)));

test('every folder with code has its row in the table, and every row its folder', () => {
  assert.deepEqual([...new Set(files.map(folderOf))].sort(), [...allowed.keys()].sort());
});

describe('what a folder may import', () => {
  for (const [folder, targets] of allowed) {
    const own = imports.filter(({ from, to }) => folderOf(from) === folder && folderOf(to) !== folder);

    test(`${folder}: ${targets === 'all' ? 'all' : [...targets.keys()].join(', ') || 'nothing'}`, () => {
      if (targets === 'all') return;
      assert.deepEqual(shown(own.filter(({ to }) => !targets.has(folderOf(to)))), []);
    });

    if (targets === 'all') continue;
    for (const [target, kind] of targets) {
      const there = own.filter(({ to }) => folderOf(to) === target);
      if (kind === 'types') {
        test(`${folder}: types of ${target}, and nothing that runs`, () => {
          assert.deepEqual(shown(there.filter(({ isType }) => !isType)), []);
        });
      }
      if (kind === 'rules') {
        test(`${folder}: rules of ${target}, which load no HTTP/2 client`, () => {
          assert.deepEqual(shown(there.filter((one) => !one.isType && loadedWith(one.to).some(isHttp2))), []);
        });
      }
    }
  }
});

describe('this test', () => {
  test('reads an import however it is written', () => {
    const text = `
import "./a.ts";
import { b } from "./b.ts";
import {
  type C,
  c,
} from "../c/c.ts";
import type { D } from "../../d/d.ts";
import * as e from "./e.mjs";
import f, { type F } from "./f.json" with { type: "json" };
export { g } from "./g.ts";
export type * from "./h.ts";
import { k } from "kysely";
const i = (await import("./i.ts")).i;
const j = await import(
  "./j.ts"
);
`;
    const found = importsOf('x/y/z.ts', text.replaceAll('"', "'")).map(({ to, isType, isDynamic }) => [
      to,
      isType,
      isDynamic,
    ]);
    assert.deepEqual(found, [
      ['x/y/a.ts', false, false],
      ['x/y/b.ts', false, false],
      ['x/c/c.ts', false, false],
      ['d/d.ts', true, false],
      ['x/y/e.mjs', false, false],
      ['x/y/f.json', false, false],
      ['x/y/g.ts', false, false],
      ['x/y/h.ts', true, false],
      ['x/y/i.ts', false, true],
      ['x/y/j.ts', false, true],
    ]);
  });

  test('finds every file that is imported', () => {
    const known = new Set(files);
    const isCode = ({ to }: Import) => /\.(ts|mjs)$/.test(to);
    assert.deepEqual(shown(imports.filter((one) => isCode(one) && !known.has(one.to))), []);
  });
});

/** From a folder to those that it may import. */
function readFolderTable(text: string): Map<string, 'all' | Map<string, Kind>> {
  const [, body = ''] = /^\| Folder \| What \| May import \|\n\|.*\n((?:\|.*\n)+)/m.exec(text) ?? [];
  return new Map(
    body
      .trim()
      .split('\n')
      .flatMap((row) => {
        const cells = row.split('|').map((cell) => cell.trim());
        const targets = readTargets(cells[3]!);
        return [...cells[1]!.matchAll(/`(\w+)\/`/g)].map(([, folder]) => [folder!, targets] as const);
      }),
  );
}

function readTargets(cell: string): 'all' | Map<string, Kind> {
  if (cell === 'all') return 'all';
  if (cell === 'nothing') return new Map();
  return new Map(
    cell.split(', ').map((words) => {
      const [, kind = 'anything', folder] = /^(?:(rules|types) of )?`(\w+)`$/.exec(words) ?? [];
      assert.ok(folder, `the table says "${words}"`);
      return [folder, kind as Kind];
    }),
  );
}

/** Of files of the project; packages are not looked at. Texts are in single quotes, which the formatter sees to. */
function importsOf(from: string, text: string): Import[] {
  const statement = /^(?:import|export) (?:(type) )?(?:[^;'"`]*? from )?'(\.[^']+)'|\bimport\(\s*'(\.[^']+)'/gm;
  return [...text.matchAll(statement)].map(([, type, target, dynamicTarget]) => ({
    from,
    to: path.posix.join(path.posix.dirname(from), (target ?? dynamicTarget)!),
    isType: type !== undefined,
    isDynamic: dynamicTarget !== undefined,
  }));
}

/** The file and all that is loaded with it: types are not, and neither is what waits for an `import()`. */
function loadedWith(file: string): string[] {
  const loaded = new Set([file]);
  // A set is walked to its end, also over what is added on the way.
  for (const one of loaded) {
    for (const { from, to, isType, isDynamic } of imports) {
      if (from === one && !isType && !isDynamic) loaded.add(to);
    }
  }
  return [...loaded];
}

function isHttp2(file: string): boolean {
  return folderOf(file) === 'http2';
}

function shown(found: Import[]): string[] {
  return found.map(({ from, to }) => `${from} imports ${to}`);
}
