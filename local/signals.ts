import { readdirSync, readFileSync } from 'node:fs';

/** Whether a process of this id runs. */
export function isRunning(pid: number): boolean {
  return canSignal(pid) && readState(String(pid))?.state !== 'Z';
}

/**
 * Whether any process of the group led by `pid` runs. A process that has ended but was not waited for doesn't count: in a
 * container whose first process waits for no child it stays in the table for ever.
 */
export function groupExists(pid: number): boolean {
  if (!canSignal(-pid)) return false;
  if (readState(String(pid))?.state !== 'Z') return true;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(readState)
    .some((process) => process?.group === pid && process.state !== 'Z');
}

/** Sends a signal to the whole process group led by `pid`; a group that is gone is no error. */
export function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function canSignal(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** From Linux's process table (proc_pid_stat(5)); undefined for a process that is gone, and on systems without /proc. */
function readState(pid: string): { state: string; group: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in brackets, may hold any character; after the last bracket come state, parent, group …
    const [state, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: state!, group: Number(group) };
  } catch {
    return undefined;
  }
}
