import { type Counts, type Devices, none } from './devices.ts';
import type { Books, Chunk, Claim, Window } from './postgres.ts';
import type { Setting } from './setting.ts';

/** A run over a claim of the batch, as `activities/delivery/` makes it. */
export interface Run extends Claim {
  /** `left`: it is over, but for answers that still come. `zombie`: see `forgetWhatZombiesHold`. */
  phase: 'claimed' | 'loading' | 'asking' | 'sending' | 'ending' | 'left' | 'zombie';
  /** Fresh devices that are not reserved. */
  open: Devices;
  /** Devices that no claim has deferred: they go by their position. */
  fresh: Devices;
  deferred: Devices;
  /** Only these are sent to, if there are any. */
  elsewhere: Devices;
  doubts: Counts;
  /** Reserved and being dispatched. */
  window: Devices;
  /** Reserved meanwhile. */
  next: Devices;
  /** Stepped aside. */
  waiting: Devices;
  inFlight: Devices;
  chunk: Chunk;
  /** Handed to PostgreSQL; whether it is stored is not known. */
  unsure: Chunk;
  /** To be given back: the earliest fresh device, and those that were deferred. */
  undispatched: { fresh: Devices; deferred: Devices };
  /** What comes after that. */
  last: 'nothing' | 'askElsewhere' | 'settleBatch';
}

export interface State {
  books: Books;
  /** Requests of a device that the provider took or may have taken: those under way and those without an answer. */
  copies: Counts;
  /** In order of their claims. */
  runs: Run[];
  /** `noteDoubts` or, with a window, `reserve_window`. */
  late: LateStatement | undefined;
  crashes: number;
  lostAnswers: number;
  pauses: number;
  /** A bit for each of `slips`. */
  slipped: number;
}

export type LateStatement = Claim & { window?: Window };

/** What must not happen at a step, and cannot be seen from the state after it. */
export const slips = [
  'a zombie wrote',
  'sent again without a doubt in the books',
  'sent again after its outcome',
  'reserved after the stop was stored',
  'refused a second row',
] as const;
export type Slip = (typeof slips)[number];

export const slipBit = (slip: Slip): number => 1 << slips.indexOf(slip);

export interface Step {
  /** A function of `db/` or `activities/`, a verdict or an event; and what came of it. */
  name: string;
  /** Of the claim that takes it; 0: none. */
  fence: number;
  devices: Devices;
  next: State;
}

export const emptyChunk: Chunk = { records: none, unsent: none, deferrals: none };
export const nothingUndispatched: Run['undispatched'] = { fresh: none, deferred: none };

export function newRun(phase: Run['phase'], { fence, horizon }: Claim): Run {
  return {
    ...{ phase, fence, horizon, open: none, fresh: none, deferred: none, elsewhere: none, doubts: 0 },
    ...{ window: none, next: none, waiting: none, inFlight: none, chunk: emptyChunk, unsure: emptyChunk },
    ...{ undispatched: nothingUndispatched, last: 'nothing' },
  };
}

export function start({ devices }: Setting): State {
  const noDevices = { rows: none, secondRows: none, inDoubt: none, unsent: none, deferrals: none, dispatched: none };
  const batch = { size: devices, fence: 0, horizon: 0, counted: 0, isFinished: false, ...noDevices, doubts: 0 };
  const counters = { crashes: 0, lostAnswers: 0, pauses: 0, slipped: 0 };
  return { books: { state: 'sending', isExpired: false, ...batch }, copies: 0, runs: [], late: undefined, ...counters };
}
