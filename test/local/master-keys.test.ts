import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { readMasterKeys } from '../../domain/master-keys.ts';
import { readSettings } from '../../domain/settings.ts';
import { keptMasterKeys } from '../../local/master-keys.ts';

test('a stack makes a master key at its first start, for its own user alone, and keeps it', (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-keys-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const made = keptMasterKeys(directory);
  assert.equal(readSettings({ CARILLON_MASTER_KEYS: made }, readMasterKeys).length, 1);
  assert.equal(statSync(path.join(directory, 'master-keys')).mode & 0o777, 0o600);
  assert.equal(keptMasterKeys(directory), made);
});
