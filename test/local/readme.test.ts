import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { projectRoot } from '../../local/paths.ts';
import packageJson from '../../package.json' with { type: 'json' };

const readme = readFileSync(path.join(projectRoot, 'README.md'), 'utf8');

test('every npm command of the README exists, and none needs another Node than the one that npm installs', () => {
  const scripts = new Set(Object.keys(packageJson.scripts));
  for (const [command, script] of readme.matchAll(/\bnpm (?:run )?([a-z][a-z:-]*)/g)) {
    const isScript = /^npm (run |start$|test$)/.test(command);
    if (isScript) assert.ok(scripts.has(script!), command);
  }
  // The machine's own Node may be too old for TypeScript; the image's is not.
  const direct = readme.split('\n').filter((line) => /\bnode [\w/.-]+\.ts\b/.test(line));
  for (const line of direct) assert.match(line, /docker compose .* exec|^\| .*\| `node [^`]*` +\| `npm run /, line);
});

test('every test that a claim of the documents names is there', () => {
  for (const document of ['docs/security.md', 'docs/architecture.md']) {
    const text = readFileSync(path.join(projectRoot, document), 'utf8');
    const named = [...text.matchAll(/`(test\/[\w/.-]+\.test\.ts)`/g)].map(([, file]) => file!);
    assert.ok(named.length > 0, document);
    for (const file of named) assert.ok(existsSync(path.join(projectRoot, file)), `${document}: ${file}`);
  }
});
