import { countOf, type Devices, each, firstDevices, none, sizeOf } from './devices.ts';
import { steps } from './model.ts';
import { type Invariant, keyOf } from './search.ts';
import type { Setting } from './setting.ts';
import { type Slip, type State, slipBit } from './state.ts';

const rules = {
  'a device has one outcome, counted once': ({ books }) =>
    books.secondRows === none &&
    books.counted === sizeOf(books.rows) &&
    books.isFinished === (books.rows === firstDevices(books.size)),
  'a device with an outcome has no deferral': ({ books }) => (books.rows & books.deferrals) === none,
  'every repeat is marked': ({ books, copies }) => areAll(books.rows & ~books.inDoubt, (d) => countOf(copies, d) < 2),
  'a repeat comes after its doubt': neverHappens('sent again without a doubt in the books'),
  'no device is sent to after its outcome': neverHappens('sent again after its outcome'),
  'skip never sends twice': ({ books, copies }, { policy }) =>
    policy !== 'skip' || areAll(firstDevices(books.size), (d) => countOf(copies, d) < 2),
  'repeats are limited': ({ books, copies }, { maxDoubts }) =>
    areAll(firstDevices(books.size), (d) => countOf(copies, d) <= maxDoubts + 1),
  'cancelled and expired were not sent to': ({ books, copies }) =>
    areAll(books.unsent, (d) => countOf(copies, d) === 0),
  'the horizon is never behind a dispatch': ({ books, copies }) => {
    const unheardOf = firstDevices(books.size) & ~(firstDevices(books.horizon) | books.rows | books.deferrals);
    return areAll(unheardOf, (d) => countOf(copies, d) === 0);
  },
  'a zombie writes nothing': neverHappens('a zombie wrote'),
  'no window is reserved after a stop': neverHappens('reserved after the stop was stored'),
  'PostgreSQL refuses no outcome': neverHappens('refused a second row'),
  'an orderly end leaves no doubt': ({ books }, { may, crashes, lostAnswers }) =>
    crashes + lostAnswers > 0 ||
    (['take over', 'be silent', 'give up', 'cancel'] as const).some((event) => may.has(event)) ||
    (books.doubts === 0 && books.inDoubt === none),
  'no run is stuck': ({ runs, books }, _, next) =>
    runs.every(({ phase, fence }) => phase === 'zombie' || next.some((step) => step.fence === fence)) &&
    (books.state !== 'cancelled' || books.isFinished || next.length > 0),
  'nothing is lost': isEndedByAFurtherClaim,
} satisfies Record<string, Invariant['holds']>;

export type InvariantName = keyof typeof rules;

export const invariants = Object.entries(rules).map(([name, holds]) => ({ name: name as InvariantName, holds }));

function areAll(devices: Devices, is: (device: Devices) => boolean): boolean {
  for (const device of each(devices)) if (!is(device)) return false;
  return true;
}

function neverHappens(slip: Slip): Invariant['holds'] {
  const bit = slipBit(slip);
  return ({ slipped }) => (slipped & bit) === 0;
}

const known = new WeakMap<Setting, Map<string, boolean>>();

/** Should every run die now: one more, in which all goes well, ends the batch by the rules. */
function isEndedByAFurtherClaim({ books, copies, slipped }: State, setting: Setting): boolean {
  const resumed = books.state === 'paused' ? { ...books, state: 'sending' as const } : books;
  const calm = { late: undefined, crashes: 0, lostAnswers: 0, pauses: 0 };
  let state: State = { books: resumed, copies, runs: [], slipped, ...calm };
  const results = known.get(setting) ?? new Map<string, boolean>();
  known.set(setting, results);
  const key = keyOf(state, setting);
  let isEnded = results.get(key);
  if (isEnded !== undefined) return isEnded;
  const oneMore = { ...setting, ...calm, claims: books.fence + 1, may: new Set<never>() };
  for (let i = 0; i < 100 && !state.books.isFinished; i++) state = steps(state, oneMore)[0]?.next ?? state;
  isEnded = state.books.isFinished && state.slipped === slipped && rules['every repeat is marked'](state);
  results.set(key, isEnded);
  return isEnded;
}
