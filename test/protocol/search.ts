import { each, none, positionOf } from './devices.ts';
import { steps } from './model.ts';
import type { Books } from './postgres.ts';
import type { Setting } from './setting.ts';
import { type Run, type State, type Step, start } from './state.ts';

/** What holds in every state; `next`: the steps that lead on from it. */
export interface Invariant {
  name: string;
  holds(state: State, setting: Setting, next: Step[]): boolean;
}

export interface Found {
  states: number;
  /** How often each kind of step was taken. */
  taken: Map<string, number>;
  /** The shortest way to a state that breaks an invariant. */
  violation?: { invariant: string; trace: string[] };
}

export interface SearchOptions {
  key?: typeof keyOf;
  onState?: (state: State) => void;
}

/** Visits every state that can be reached, each once, nearest first, until one breaks an invariant. */
export function search(setting: Setting, invariants: Invariant[], { key = keyOf, onState }: SearchOptions = {}): Found {
  const first = start(setting);
  const seen = new Set([key(first, setting)]);
  const taken = new Map<string, number>();
  // For each state, in the order of visits: the one that it was reached from, and by which of its steps.
  const parents = [0];
  const choices = [0];
  let number = 0;
  for (let level = [first]; level.length > 0; ) {
    const nextLevel: State[] = [];
    for (const state of level) {
      const next = steps(state, setting);
      const broken = invariants.find((invariant) => !invariant.holds(state, setting, next));
      if (broken !== undefined) {
        const trace = traceTo(number, parents, choices, setting);
        return { states: number + 1, taken, violation: { invariant: broken.name, trace } };
      }
      onState?.(state);
      next.forEach((step, choice) => {
        taken.set(step.name, (taken.get(step.name) ?? 0) + 1);
        const { size } = seen;
        if (seen.add(key(step.next, setting)).size === size) return;
        parents.push(number);
        choices.push(choice);
        nextLevel.push(step.next);
      });
      number += 1;
    }
    level = nextLevel;
  }
  return { states: number, taken };
}

function traceTo(number: number, parents: number[], choices: number[], setting: Setting): string[] {
  const way: number[] = [];
  for (let at = number; at > 0; at = parents[at]!) way.unshift(choices[at]!);
  let state = start(setting);
  return way.map((choice) => {
    const { name, fence, devices, next } = steps(state, setting)[choice]!;
    state = next;
    const who = fence === 0 ? '' : `claim ${fence}: `;
    return `${who}${name}${devices === none ? '' : ` {${each(devices).map(positionOf)}}`}`;
  });
}

const phases: Run['phase'][] = ['claimed', 'loading', 'asking', 'sending', 'ending', 'left', 'zombie'];
const states: Books['state'][] = ['sending', 'paused', 'cancelled'];
const lasts: Run['last'][] = ['nothing', 'askElsewhere', 'settleBatch'];

/**
 * Every field of a state in a few characters. Reduced, they are the same for states that differ only in the order of devices that
 * are interchangeable: those below the horizon that nothing can bring above it again, so that their positions say nothing.
 */
export function keyOf(state: State, { isReduced }: Setting): string {
  const { books: b, runs, late } = state;
  const codes = [
    states.indexOf(b.state) * 4 + Number(b.isExpired) * 2 + Number(b.isFinished),
    b.fence * 64 + b.horizon * 8 + b.counted,
    state.crashes * 64 + state.lostAnswers * 8 + state.pauses,
    state.slipped,
    late === undefined ? 0 : 1 + late.fence * 16 + late.horizon * 2 + (late.window?.areFresh ? 1 : 0),
  ];
  const sets = [b.rows, b.secondRows, b.inDoubt, b.unsent, b.deferrals, b.dispatched, late?.window?.devices ?? none];
  const counts = [b.doubts, state.copies];
  let ordered = ((1 << b.size) - (1 << b.horizon)) | (late?.window?.areFresh ? late.window.devices : none);
  for (const r of runs) {
    const { chunk: c, unsure: u, undispatched } = r;
    codes.push((phases.indexOf(r.phase) * 8 + r.fence) * 32 + r.horizon * 4 + lasts.indexOf(r.last));
    sets.push(r.open, r.fresh, r.deferred, r.elsewhere, r.window, r.next, r.waiting, r.inFlight);
    sets.push(c.records, c.unsent, c.deferrals, u.records, u.unsent, u.deferrals);
    sets.push(undispatched.fresh, undispatched.deferred);
    counts.push(r.doubts);
    ordered |= r.open | (r.fresh & (r.window | r.next | r.waiting)) | undispatched.fresh;
  }
  const interchangeable = !isReduced ? 0 : ordered === none ? b.size : positionOf(ordered & -ordered);
  const columns: number[][] = [];
  for (let position = 0; position < b.size; position++) {
    const column = columnOf(position, sets, counts);
    let at = position;
    if (position < interchangeable) while (at > 0 && isLess(column, columns[at - 1]!)) at -= 1;
    columns.splice(at, 0, column);
  }
  for (const column of columns) for (const code of column) codes.push(code);
  return String.fromCharCode.apply(null, codes);
}

/** All that is said of one device, 14 bits a number. */
function columnOf(position: number, sets: number[], counts: number[]): number[] {
  const column: number[] = [];
  let code = 0;
  for (let i = 0; i < sets.length; i++) {
    code = (code << 1) | ((sets[i]! >> position) & 1);
    if (i % 14 === 13 || i === sets.length - 1) {
      column.push(code);
      code = 0;
    }
  }
  for (const count of counts) code = (code << 2) | ((count >> (2 * position)) & 3);
  column.push(code);
  return column;
}

function isLess(a: number[], b: number[]): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! < b[i]!;
  return false;
}
