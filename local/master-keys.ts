import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { localMasterKeysFile } from '../admin/local-files.ts';
import { generateMasterKey } from '../db/master-keys.ts';

/** `CARILLON_MASTER_KEYS` of a stack: those in its folder, for this user's eyes alone; made at the first start. */
export function keptMasterKeys(directory: string): string {
  const file = path.join(directory, path.basename(localMasterKeysFile));
  if (!existsSync(file)) writeFileSync(file, generateMasterKey().key, { mode: 0o600, flag: 'wx' });
  return readFileSync(file, 'utf8').trim();
}
