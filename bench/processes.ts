/** CPU and memory of the stack's processes, as Linux counts them (proc(5)). */
import { readdirSync, readFileSync } from 'node:fs';

/** The unit of times in `/proc/<pid>/stat` on every Linux that Node supports. */
const msPerTick = 10;

/** Whether this system shows CPU and memory of other processes. */
export const canMeasureProcesses = process.platform === 'linux';

/** Milliseconds of CPU that a process and all its descendants have used, ended children included. */
export function cpuMs(pid: number): number {
  let ticks = 0;
  for (const member of processTree(pid)) {
    const stat = readOrUndefined(`/proc/${member}/stat`);
    // The name, in parentheses, may hold spaces; utime, stime, cutime and cstime are the 14th to 17th field.
    const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
    for (const field of fields?.slice(11, 15) ?? []) ticks += Number(field);
  }
  return ticks * msPerTick;
}

/** Resident memory in megabytes (10^6 bytes). */
export function residentMb(pid: number): number {
  const kib = readOrUndefined(`/proc/${pid}/status`)?.match(/^VmRSS:\s+(\d+)/m)?.[1];
  return (Number(kib ?? 0) * 1024) / 1e6;
}

function processTree(pid: number): number[] {
  const children = threadsOf(pid).flatMap((thread) => {
    const text = readOrUndefined(`/proc/${pid}/task/${thread}/children`) ?? '';
    return text.split(' ').filter((child) => child !== '');
  });
  return [pid, ...children.flatMap((child) => processTree(Number(child)))];
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function readOrUndefined(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
