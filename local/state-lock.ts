import { createHash } from 'node:crypto';
import os from 'node:os';
import path from 'node:path';
import type { LeashHolder } from './leash-holder.ts';

/**
 * Makes this process the only stack on a data folder. Waits for the clean-up after a killed predecessor.
 * @throws when another stack runs on the folder
 */
export async function lockState(leash: LeashHolder, directory: string): Promise<void> {
  // Not in the folder itself: the path of a Unix socket may have about 100 bytes.
  const hash = createHash('sha256').update(path.resolve(directory)).digest('hex').slice(0, 16);
  const socket = path.join(os.tmpdir(), `carillon-${hash}.lock`);
  if (!(await leash.lock(socket))) {
    throw new Error(`Carillon already runs on ${directory}. Stop it first (Ctrl-C in its terminal).`);
  }
}
