/** A program with a child on its leash, a folder to be removed and a lock; prints what it has, then waits to be killed. */
import path from 'node:path';
import { startChild } from '../../local/child.ts';
import { startLeash } from '../../local/leash-holder.ts';
import { lockState } from '../../local/state-lock.ts';

const directory = process.argv[2]!;
const ignoresStop = process.argv[3] === 'stubborn';
const leash = startLeash();
await lockState(leash, directory);
leash.removeAtEnd(path.join(directory, 'temporary'));
const script = `${ignoresStop ? "process.on('SIGTERM', () => {});" : ''} setInterval(() => {}, 1000); console.log('up');`;
const child = await startChild({
  name: 'sleeper',
  command: process.execPath,
  args: ['--eval', script],
  logFile: path.join(directory, 'temporary', 'sleeper.log'),
  stopGraceMs: 500,
  leash,
});
console.log(child.pid);
