import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { watchLogForErrors } from '../../local/watch-log.ts';

test('errors that are added to a log are handed on once, also when a line arrives in two parts', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-log-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'worker.log');
  writeFileSync(file, '{"level":50,"msg":"of an earlier start"}\n');
  const seen: string[] = [];
  const end = watchLogForErrors(file, (message) => seen.push(message), 5);
  t.after(end);

  appendFileSync(file, '{"level":30,"msg":"well"}\nno JSON\n{"level":50,"msg":"broken","err":{"mess');
  await sleep(30);
  appendFileSync(file, 'age":"why"}}\n{"level":60,"msg":"worse"}\n');
  const deadline = Date.now() + 5_000;
  while (seen.length < 2 && Date.now() < deadline) await sleep(5);

  assert.deepEqual(seen, ['broken: why', 'worse']);
});
