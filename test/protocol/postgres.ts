/** What PostgreSQL keeps of one batch, and the statements that change it: a function each, named as in `db/`, all of it or nothing. */
import {
  type Counts,
  countOf,
  countsOf,
  type Devices,
  each,
  firstDevices,
  none,
  positionOf,
  sizeOf,
  withCount,
} from './devices.ts';
import type { Guards } from './guards.ts';

export interface Books {
  /** Devices. */
  size: number;
  state: 'sending' | 'paused' | 'cancelled';
  isExpired: boolean;
  fence: number;
  horizon: number;
  /** Outcomes in the batch's running counts. */
  counted: number;
  isFinished: boolean;
  /** Devices with an outcome, … */
  rows: Devices;
  /** … with another one, … */
  secondRows: Devices;
  /** … with one that says `in_doubt`, … */
  inDoubt: Devices;
  /** … and with one that says that nothing was sent: `cancelled`, `expired`. */
  unsent: Devices;
  deferrals: Devices;
  dispatched: Devices;
  doubts: Counts;
}

export type Claim = Pick<Books, 'fence' | 'horizon'>;
export type Refusal = 'fenced' | 'paused' | 'cancelled' | 'expired';

export function claimBatch(books: Books, guards: Guards): Books {
  return { ...books, fence: books.fence + (guards['claimBatch raises the fence'] ? 1 : 0) };
}

export function noteDoubts(books: Books, { fence, horizon }: Claim, guards: Guards): Books {
  if (horizon === 0 || (guards['noteDoubts checks the fence'] && fence !== books.fence)) return books;
  const next = { ...books };
  if (guards['noteDoubts counts dispatched deferrals']) {
    for (const device of each(books.dispatched)) {
      next.doubts = withCount(next.doubts, device, countOf(next.doubts, device) + 1);
    }
    next.dispatched = none;
  }
  if (guards['noteDoubts counts fresh devices']) {
    for (const device of each(firstDevices(books.horizon) & ~books.rows & ~books.deferrals)) {
      next.deferrals |= device;
      next.doubts = withCount(next.doubts, device, 1);
    }
  }
  return next;
}

export interface Window {
  devices: Devices;
  /** Named by position, not by their deferrals. */
  areFresh: boolean;
}

/**
 * One step, although PostgreSQL reads the state first and without a lock: where no claim comes in between it might as well
 * have moved the horizon before the state changed, and where one comes the fence refuses.
 */
export function reserveWindow(books: Books, fence: number, window: Window, guards: Guards): Books | Refusal {
  if (guards['reserve_window reads the state']) {
    if (books.state !== 'sending') return books.state;
    if (books.isExpired) return 'expired';
  }
  if ((guards['reserve_window checks the fence'] && fence !== books.fence) || books.isFinished) return 'fenced';
  const { devices, areFresh } = window;
  const next = { ...books };
  const end = areFresh && guards['reserve_window moves the horizon'] ? positionOf(devices) + 1 : 0;
  next.horizon = guards['reserve_window moves it forward only'] ? Math.max(books.horizon, end) : end;
  if (!areFresh && guards['reserve_window marks deferrals as dispatched']) next.dispatched |= devices & books.deferrals;
  return next;
}

/** What one run tells the books in one transaction. */
export interface Chunk {
  records: Devices;
  /** Of these: `expired`, nothing was sent. */
  unsent: Devices;
  deferrals: Devices;
}

/** `recordDeliveries`, `storeDeferrals`, `deleteDeferrals`. `refused`: a second row for a device. */
export function storeChunk(
  books: Books,
  fence: number,
  { records, unsent, deferrals, doubts, ended }: Chunk & { doubts: Counts; ended: Devices },
  guards: Guards,
): Books | 'fenced' | 'refused' {
  if (records !== none || guards['deferrals alone check the fence']) {
    if (guards['record_deliveries checks the fence'] && fence !== books.fence) return 'fenced';
    if (guards['a finished batch takes no more'] && books.isFinished) return 'fenced';
  }
  if ((records & books.rows) !== none && guards['a device has one row']) return 'refused';
  const next = { ...books };
  addRows(next, records, unsent);
  for (const device of each(records)) {
    if (countOf(doubts, device) > 0 && guards['the row says in_doubt']) next.inDoubt |= device;
  }
  next.deferrals |= deferrals;
  next.doubts = countsOf(doubts, deferrals) | countsOf(books.doubts, books.deferrals & ~deferrals);
  if (guards['storeDeferrals ends the dispatch']) next.dispatched &= ~deferrals;
  if (guards['an outcome ends the deferral']) endDeferrals(next, ended);
  return next;
}

function addRows(books: Books, records: Devices, unsent: Devices): void {
  books.secondRows |= books.rows & records;
  books.rows |= records;
  books.unsent |= unsent;
  books.counted += sizeOf(records);
  books.isFinished ||= books.counted === books.size;
}

function endDeferrals(books: Books, ended: Devices): void {
  books.deferrals &= ~ended;
  books.dispatched &= ~ended;
  books.doubts = countsOf(books.doubts, books.deferrals);
}

/** `PendingDevices.askElsewhere`: `lockBatch`, `storeDeferrals`. */
export function storeElsewhere(books: Books, fence: number, devices: Devices, guards: Guards): Books | 'fenced' {
  if (guards['lockBatch checks the fence'] && fence !== books.fence) return 'fenced';
  const doubts = countsOf(books.doubts, books.deferrals & ~devices);
  return { ...books, deferrals: books.deferrals | devices, dispatched: books.dispatched & ~devices, doubts };
}

/** `from`: the earliest fresh position that was not dispatched; undefined: there is none. */
export function returnReserved(
  books: Books,
  fence: number,
  { from, deferred }: { from: number | undefined; deferred: Devices },
  guards: Guards,
): Books {
  if (guards['returnReserved checks the fence'] && fence !== books.fence) return books;
  return { ...books, horizon: from ?? books.horizon, dispatched: books.dispatched & ~deferred };
}

export function settleBatch(books: Books, fence: number, guards: Guards): Books | 'fenced' | 'refused' {
  if ((guards['settleBatch checks the fence'] && fence !== books.fence) || books.isFinished) return 'fenced';
  const recorded = guards['settleBatch leaves rows alone'] ? books.rows : none;
  const left = firstDevices(books.size) & ~recorded;
  if ((left & books.rows) !== none && guards['a device has one row']) return 'refused';
  let doubted = none;
  if (guards['settleBatch doubts what is below the horizon']) doubted |= firstDevices(books.horizon) & ~books.deferrals;
  if (guards['settleBatch doubts dispatched deferrals']) doubted |= books.dispatched;
  for (const device of each(books.deferrals)) {
    if (countOf(books.doubts, device) > 0 && guards['settleBatch keeps doubts']) doubted |= device;
  }
  const next = { ...books, inDoubt: books.inDoubt | (left & doubted) };
  addRows(next, left, left & ~doubted);
  endDeferrals(next, books.deferrals);
  return next;
}
