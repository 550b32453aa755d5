/** Whether a process of this id exists (a zombie counts). */
export function isRunning(pid: number): boolean {
  return canSignal(pid);
}

/** Whether any process of the group led by `pid` exists. */
export function groupExists(pid: number): boolean {
  return canSignal(-pid);
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
