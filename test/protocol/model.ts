/**
 * The protocol of one batch, as steps from state to state. There is no time: what may happen later may happen at any moment, and
 * a takeover, as after a missed heartbeat, finds the former run stopped or still going, as a zombie.
 */
import { each, none } from './devices.ts';
import * as postgres from './postgres.ts';
import { claimToSend, isHeldBack, RunSteps } from './run-steps.ts';
import type { Setting } from './setting.ts';
import { newRun, type State, type Step, slipBit } from './state.ts';

/** Every step that may come next. The first one leads on to the end of the batch. */
export function steps(state: State, setting: Setting): Step[] {
  const found: Step[] = [];
  for (const run of state.runs) new RunSteps(state, setting, found, run).find();
  findStepsOfOthers(state, setting, found);
  if (setting.isReduced) for (const { next } of found) forgetWhatZombiesHold(next, state, setting);
  return found;
}

/** Temporal, which starts runs, operators, the clock, and the workflow that settles a cancelled send. */
function findStepsOfOthers(state: State, { claims, pauses, may, guards }: Setting, found: Step[]): void {
  const { books, runs, late, slipped } = state;
  const add = (name: string, next: Partial<State>) =>
    found.push({ name, fence: 0, devices: none, next: { ...state, ...next } });
  if (late !== undefined) {
    const { window, fence } = late;
    const name = window === undefined ? 'noteDoubts' : 'reserve_window';
    const after = window
      ? postgres.reserveWindow(books, fence, window, guards)
      : postgres.noteDoubts(books, late, guards);
    if (typeof after === 'string' || after === books) add(`${name}, late: no effect`, { late: undefined });
    else {
      const more = fence === books.fence ? 0 : slipBit('a zombie wrote');
      add(`${name}, late`, { late: undefined, books: after, slipped: slipped | more });
    }
  }
  if (books.isFinished) return;
  if (books.state === 'cancelled') {
    const claimed = postgres.claimBatch(books, guards);
    const settled = postgres.settleBatch(claimed, claimed.fence, guards);
    if (typeof settled !== 'string') add('settleCancelled', { books: settled });
    else add(`settleCancelled: ${settled}`, { slipped: slipped | slipBit('refused a second row') });
    return;
  }
  const isTaken = runs.some(({ phase, fence }) => phase !== 'zombie' && fence === books.fence);
  if (books.state === 'sending' && books.fence < claims && (!isTaken || may.has('take over'))) {
    const claimed = claimToSend(books, guards);
    add('claimBatch', { books: claimed, runs: [...runs, newRun('claimed', claimed)] });
  }
  if (books.state === 'paused') add('resume', { books: { ...books, state: 'sending' } });
  else if (state.pauses < pauses) add('pause', { books: { ...books, state: 'paused' }, pauses: state.pauses + 1 });
  if (may.has('cancel')) add('cancel', { books: { ...books, state: 'cancelled' } });
  if (may.has('expire') && !books.isExpired) add('expire', { books: { ...books, isExpired: true } });
}

/**
 * All that a zombie can still do is send what it had reserved, in any order. Nor does it matter how that is answered: it cannot
 * write it down, and refused is as good as not sent.
 */
function forgetWhatZombiesHold(state: State, before: State, setting: Setting): void {
  const { fence, isFinished } = state.books;
  if (fence === before.books.fence && isFinished === before.books.isFinished) return;
  state.runs = state.runs.flatMap((run) => {
    if (run.phase === 'zombie' || (run.fence === fence && !isFinished)) return [run];
    let window = none;
    for (const device of each(run.window | run.next | run.waiting)) {
      if (!isHeldBack(run, device, setting)) window |= device;
    }
    return window === none ? [] : [{ ...newRun('zombie', { fence: run.fence, horizon: 0 }), window }];
  });
}
