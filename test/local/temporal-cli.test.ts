import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { findTemporalCli } from '../../local/temporal-cli.ts';

function withEnvironment<T>(changes: Record<string, string | undefined>, run: () => Promise<T>): Promise<T> {
  const before = { ...process.env };
  Object.assign(process.env, changes);
  return run().finally(() => {
    for (const name of Object.keys(changes)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  });
}

test('TEMPORAL_CLI comes before the PATH, and the PATH before anything fetched', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-cli-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const program = path.join(directory, 'temporal');
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o755);

  assert.equal(
    await withEnvironment({ TEMPORAL_CLI: process.execPath, PATH: directory }, findTemporalCli),
    process.execPath,
  );
  assert.equal(await withEnvironment({ TEMPORAL_CLI: '', PATH: directory }, findTemporalCli), program);
});

test('a TEMPORAL_CLI that cannot be run is an error, not a reason to take another program', async () => {
  await assert.rejects(
    withEnvironment({ TEMPORAL_CLI: '/nowhere/temporal' }, findTemporalCli),
    /TEMPORAL_CLI is \/nowhere\/temporal, which is not an executable file/,
  );
});
