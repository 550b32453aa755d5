import {
  type Counts,
  countOf,
  countsOf,
  type Devices,
  each,
  firstDevices,
  lowestOf,
  none,
  positionOf,
  sizeOf,
  withCount,
} from './devices.ts';
import type { Guards } from './guards.ts';
import * as postgres from './postgres.ts';
import type { Setting } from './setting.ts';
import {
  emptyChunk,
  type LateStatement,
  newRun,
  nothingUndispatched,
  type Run,
  type Slip,
  type State,
  type Step,
  slipBit,
} from './state.ts';

/** What a step changes. */
interface Change {
  run?: Partial<Run>;
  world?: Partial<State>;
  /** Devices that it is about. */
  about?: Devices;
}

/** The right to send. A cancelled batch is claimed without: `settleBatch` sees to the doubts itself. */
export function claimToSend(books: postgres.Books, guards: Guards): postgres.Books {
  const claimed = postgres.claimBatch(books, guards);
  if (!guards['a claim notes its doubts in one transaction']) return claimed;
  return postgres.noteDoubts(claimed, claimed, guards);
}

/** By the in-doubt policy. */
export function isHeldBack({ doubts }: Run, device: Devices, { policy, maxDoubts, guards }: Setting): boolean {
  const count = countOf(doubts, device);
  if (count > 0 && policy === 'skip' && guards['the policy is asked before a repeat']) return true;
  return count > maxDoubts && guards['repeats end after maxDoubts'];
}

/** What one run may do next: `deliverBatch`, `PendingDevices`, `Sender`, `RunBooks` and `Recorder`. */
export class RunSteps {
  readonly #state: State;
  readonly #setting: Setting;
  readonly #found: Step[];
  readonly #run: Run;

  constructor(state: State, setting: Setting, found: Step[], run: Run) {
    this.#state = state;
    this.#setting = setting;
    this.#found = found;
    this.#run = run;
  }

  find(): void {
    const { phase, window } = this.#run;
    switch (phase) {
      case 'claimed':
        if (this.#setting.guards['a claim notes its doubts in one transaction']) this.#load();
        else this.#noteDoubts();
        break;
      case 'loading':
        this.#load();
        break;
      case 'asking':
        this.#askElsewhere();
        break;
      case 'sending':
        this.#send();
        break;
      case 'ending':
        this.#end();
        break;
      case 'left':
        this.#settle();
        this.#record();
        this.#over('the worker is gone');
        return;
      case 'zombie':
        for (const device of each(window)) this.#request(device, { window: window & ~device });
        return;
    }
    const crashes = this.#state.crashes + 1;
    if (crashes <= this.#setting.crashes) this.#over('crash', { crashes });
  }

  #add(name: string, { run: more, world, about = none }: Change): void {
    const run = { ...this.#run, ...more };
    if (run.window === none) {
      run.window = run.next;
      run.next = none;
    }
    // What is known of devices that the run has no more to do with is forgotten.
    const { chunk, unsure } = run;
    const unwritten = chunk.records | chunk.deferrals | unsure.records | unsure.deferrals;
    const held = run.open | run.deferred | run.window | run.next | run.waiting | run.inFlight | unwritten;
    run.fresh &= held;
    run.doubts = countsOf(run.doubts, held);
    const runs = this.#state.runs.map((other) => (other === this.#run ? run : other));
    this.#found.push({ name, fence: this.#run.fence, devices: about, next: { ...this.#state, ...world, runs } });
  }

  #over(name: string, world: Partial<State> = {}): void {
    const runs = this.#state.runs.filter((other) => other !== this.#run);
    this.#found.push({ name, fence: this.#run.fence, devices: none, next: { ...this.#state, ...world, runs } });
  }

  /** A statement is carried out; or so, but the answer is lost and the run repeats it; or it is repeated first, and comes late. */
  #write(name: string, books: postgres.Books, { run = {}, about = none, world }: Change, late?: LateStatement): void {
    if (books === this.#state.books) {
      this.#add(name, { run, about });
      return;
    }
    const written = { slipped: this.#slippedIf(this.#isZombie, 'a zombie wrote'), ...world, books };
    this.#add(name, { run, world: written, about });
    this.#loseAnswer(`${name}, answer lost`, { world: written, about });
    if (late !== undefined && this.#setting.may.has('come late')) {
      this.#loseAnswer(`${name}, not done yet`, { world: { late }, about });
    }
  }

  #loseAnswer(name: string, { world, ...change }: Change): void {
    const lostAnswers = this.#state.lostAnswers + 1;
    if (lostAnswers <= this.#setting.lostAnswers) this.#add(name, { ...change, world: { ...world, lostAnswers } });
  }

  get #isZombie(): boolean {
    return this.#run.fence !== this.#state.books.fence;
  }

  #slippedIf(isSo: boolean, slip: Slip): number {
    return isSo ? this.#state.slipped | slipBit(slip) : this.#state.slipped;
  }

  #claim(): void {
    const { last } = this.#run;
    const books = claimToSend(this.#state.books, this.#setting.guards);
    this.#add('claimBatch', { run: { ...newRun('claimed', books), last }, world: { books } });
  }

  #noteDoubts(): void {
    const { fence, horizon } = this.#run;
    const books = postgres.noteDoubts(this.#state.books, { fence, horizon }, this.#setting.guards);
    this.#write('noteDoubts', books, { run: { phase: 'loading' } }, { fence, horizon });
  }

  #load(): void {
    const { books } = this.#state;
    const { guards, isReduced } = this.#setting;
    const { last } = this.#run;
    // A batch that nobody touched has neither outcomes nor deferrals: they are not asked for.
    const isTouched = this.#run.horizon > 0;
    const recorded = isTouched && guards['recorded devices are left out'] ? books.rows : none;
    const deferred = isTouched ? books.deferrals : none;
    const open = firstDevices(books.size) & ~recorded & ~deferred;
    const phase = last === 'askElsewhere' ? 'asking' : 'sending';
    // Below it no device is fresh from here on, so none is given back there.
    const horizon = isReduced ? 0 : this.#run.horizon;
    const doubts = isTouched ? books.doubts : 0;
    this.#add('load', { run: { phase, horizon, last: 'nothing', open, fresh: open, deferred, doubts } });
  }

  /** The last device, or the last two. */
  #askElsewhere(): void {
    const { open, deferred, fence } = this.#run;
    if (open === none) this.#add('askElsewhere: nobody', { run: { phase: 'sending' } });
    for (let left = open, chosen = none; left !== none && sizeOf(chosen) < 2; left &= ~chosen) {
      chosen |= 1 << positionOf(left);
      const books = postgres.storeElsewhere(this.#state.books, fence, chosen, this.#setting.guards);
      if (books === 'fenced') {
        this.#over('askElsewhere: fenced');
        return;
      }
      const fresh = open & ~chosen;
      const loaded = { open: fresh, fresh, deferred: deferred | chosen, elsewhere: chosen };
      this.#write('askElsewhere', books, { run: { phase: 'sending', ...loaded }, about: chosen });
    }
  }

  #send(): void {
    const { window, next, inFlight, waiting, open, elsewhere } = this.#run;
    this.#dispatch();
    this.#settle();
    this.#record();
    if (next === none) this.#nextWindow();
    const isAnswered = (window | inFlight | waiting) === none;
    if (isAnswered && elsewhere !== none) this.#add('endElsewhere', { run: { elsewhere: none } });
    if (isAnswered && elsewhere === none && open === none) this.#stop('exhausted');
    if (this.#setting.may.has('shut down')) this.#stop('shutdown');
  }

  /** Fresh devices first, in order. Those deferred follow in any choice: which ones are due is a matter of time. */
  #nextWindow(): void {
    const { open, deferred, elsewhere, chunk, unsure } = this.#run;
    const { windowSize, guards } = this.#setting;
    if (elsewhere === none && open !== none) {
      for (let size = Math.min(windowSize, sizeOf(open)); size > 0; size--) {
        const devices = each(open).slice(0, size);
        this.#reserveWindow({ devices: devices.reduce((all, device) => all | device), areFresh: true });
      }
      return;
    }
    let due = elsewhere === none ? deferred : deferred & elsewhere;
    if (guards['deferrals are stored before they are sent to again']) due &= ~(chunk.deferrals | unsure.deferrals);
    for (let devices = due; devices !== none; devices = (devices - 1) & due) {
      if (sizeOf(devices) <= windowSize) this.#reserveWindow({ devices, areFresh: false });
    }
  }

  #reserveWindow(window: postgres.Window): void {
    const { fence, horizon, open, deferred } = this.#run;
    const { books } = this.#state;
    const { devices } = window;
    const answer = postgres.reserveWindow(books, fence, window, this.#setting.guards);
    if (answer === 'fenced') this.#over('reserve_window: fenced');
    else if (typeof answer === 'string') this.#stop(answer);
    else {
      const run = { next: devices, open: open & ~devices, deferred: deferred & ~devices };
      const slipped =
        this.#slippedIf(books.state !== 'sending' || books.isExpired, 'reserved after the stop was stored') |
        this.#slippedIf(this.#isZombie, 'a zombie wrote');
      this.#write('reserve_window', answer, { run, world: { slipped }, about: devices }, { fence, horizon, window });
    }
  }

  /** Fresh devices in order, those deferred in any. */
  #dispatch(): void {
    const { window, fresh, waiting } = this.#run;
    const { may } = this.#setting;
    for (const device of each(lowestOf(window & fresh) || window)) {
      const rest = { window: window & ~device };
      this.#request(device, rest);
      if (may.has('step aside')) {
        this.#add('letOthersPass', { run: { ...rest, waiting: waiting | device }, about: device });
      }
      if (may.has('not connect')) this.#postpone(device, rest);
    }
    for (const device of each(waiting)) {
      const rest = { waiting: waiting & ~device };
      this.#request(device, rest);
      this.#postpone(device, rest);
    }
  }

  #postpone(device: Devices, rest: Partial<Run>): void {
    this.#add('postpone', { run: { ...rest, ...postponed(this.#run, device) }, about: device });
  }

  #request(device: Devices, rest: Partial<Run>): void {
    const { books, copies } = this.#state;
    const { doubts, phase, inFlight } = this.#run;
    if (isHeldBack(this.#run, device, this.#setting)) {
      this.#add('recordUnsent: unknown', { run: { ...rest, ...this.#recorded(device) }, about: device });
      return;
    }
    if (books.isExpired) {
      this.#add('recordUnsent: expired', { run: { ...rest, ...this.#recorded(device, doubts) }, about: device });
      return;
    }
    const isMarked = (books.inDoubt & device) !== none;
    const isUnmarked = countOf(copies, device) > 0 && !isMarked && countOf(books.doubts, device) === 0;
    // A zombie may still dispatch what it had reserved: the later claim has counted that as a doubt.
    const isEnded = (books.rows & device) !== none && !(this.#isZombie && isMarked);
    const slipped =
      this.#slippedIf(isUnmarked, 'sent again without a doubt in the books') |
      this.#slippedIf(isEnded, 'sent again after its outcome');
    const world = { copies: withCount(copies, device, countOf(copies, device) + 1), slipped };
    if (phase !== 'zombie') this.#add('send', { run: { ...rest, inFlight: inFlight | device }, world, about: device });
    else if (rest.window === none) this.#over('send', world);
    else this.#add('send', { run: rest, world, about: device });
  }

  /** Verdicts. A copy that was not taken is none. */
  #settle(): void {
    const { inFlight, doubts, elsewhere, open, window, next, fresh, phase } = this.#run;
    const { may, policy, maxDoubts, guards } = this.#setting;
    const { copies } = this.#state;
    const isAnyUntried = (open | ((window | next) & fresh)) !== none;
    for (const device of each(inFlight)) {
      const rest = { inFlight: inFlight & ~device };
      const untaken = { copies: withCount(copies, device, countOf(copies, device) - 1) };
      const refused: Change = { run: { ...rest, ...this.#deferred(device, doubts) }, world: untaken, about: device };
      this.#add('accepted', { run: { ...rest, ...this.#recorded(device) }, about: device });
      if (may.has('refuse')) this.#add('later', refused);
      if (may.has('not connect'))
        this.#add('unsent', { ...refused, run: { ...rest, ...postponed(this.#run, device) } });
      if (may.has('ask elsewhere') && elsewhere === none && isAnyUntried && phase === 'sending') {
        this.#stop('askElsewhere', refused);
      }
      if (!may.has('be silent')) continue;
      const more = withCount(doubts, device, countOf(doubts, device) + (guards['silence is a doubt'] ? 1 : 0));
      const isForbidden = policy === 'skip' && guards['the policy is asked after silence'];
      const isSpent = countOf(more, device) > maxDoubts && guards['repeats end after maxDoubts'];
      const verdict = isForbidden || isSpent ? this.#recorded(device) : this.#deferred(device, more);
      this.#add('unanswered', { run: { ...rest, ...verdict, doubts: more }, about: device });
    }
  }

  /** `doubts`: the message has expired, and was not sent to this device unless these say so. */
  #recorded(device: Devices, doubts?: Counts): Partial<Run> {
    const { chunk } = this.#run;
    const isUnsent = doubts !== undefined && countOf(doubts, device) === 0;
    return { chunk: { ...chunk, records: chunk.records | device, unsent: chunk.unsent | (isUnsent ? device : none) } };
  }

  #deferred(device: Devices, doubts: Counts): Partial<Run> {
    const { chunk, deferred, fresh } = this.#run;
    // A wait beyond the expiry is not waited for.
    if (this.#state.books.isExpired) return this.#recorded(device, doubts);
    const deferrals = chunk.deferrals | device;
    return { chunk: { ...chunk, deferrals }, deferred: deferred | device, fresh: fresh & ~device };
  }

  #record(): void {
    const { chunk, unsure, fence, doubts, fresh } = this.#run;
    const { books } = this.#state;
    const { guards } = this.#setting;
    const isRetry = (unsure.records | unsure.deferrals) !== none;
    const written = isRetry ? unsure : chunk;
    const about = written.records | written.deferrals;
    if (about === none) return;
    const run = isRetry ? { unsure: emptyChunk } : { chunk: emptyChunk };
    if (isRetry && guards['is it stored?'] && (lowestOf(written.records) & books.rows) !== none) {
      this.#add('isStored: yes', { run, about });
      return;
    }
    const name = written.records === none ? 'storeDeferrals' : 'record_deliveries';
    const answer = postgres.storeChunk(books, fence, { ...written, doubts, ended: written.records & ~fresh }, guards);
    if (typeof answer === 'string') this.#refused(name, answer);
    else {
      const world = { books: answer, slipped: this.#slippedIf(this.#isZombie, 'a zombie wrote') };
      this.#add(name, { run, world, about });
      this.#loseAnswer(`${name}, answer lost`, { run: { ...run, unsure: written }, world, about });
      if (!isRetry) this.#loseAnswer(`${name}, not stored`, { run: { ...run, unsure: written }, about });
    }
  }

  /** The run fails, and writes nothing more. */
  #refused(name: string, answer: 'fenced' | 'refused'): void {
    this.#over(`${name}: ${answer}`, { slipped: this.#slippedIf(answer === 'refused', 'refused a second row') });
  }

  /** Nothing more is dispatched: what is reserved is noted, to be given back. */
  #stop(why: 'exhausted' | 'shutdown' | 'askElsewhere' | postgres.Refusal, change: Change = {}): void {
    const { guards } = this.#setting;
    const run: Run = { ...this.#run, ...change.run, phase: 'ending' };
    const reserved = run.window | run.next;
    const aside = guards['a device that stepped aside is deferred'] ? run.waiting : run.waiting & ~run.fresh;
    const fresh = lowestOf(run.fresh & (reserved | (run.waiting & ~aside)));
    run.undispatched = { fresh, deferred: run.undispatched.deferred | (reserved & ~run.fresh) };
    for (const device of each(aside)) Object.assign(run, postponed(run, device));
    Object.assign(run, { open: none, deferred: none, elsewhere: none, waiting: none });
    if (guards['nothing is dispatched after a stop']) Object.assign(run, { window: none, next: none });
    run.last = why === 'askElsewhere' ? why : why === 'expired' ? 'settleBatch' : 'nothing';
    this.#add(`stop: ${why}`, { ...change, run });
  }

  /** Answers, what is unwritten, what was not dispatched; then the run is over. */
  #end(): void {
    const { inFlight, chunk, unsure, undispatched, last, fence, window } = this.#run;
    const { may, guards, claims } = this.#setting;
    const { books } = this.#state;
    if (window !== none) this.#dispatch();
    this.#settle();
    this.#record();
    const isWritten = (chunk.records | chunk.deferrals | unsure.records | unsure.deferrals) === none;
    if (!isWritten || (inFlight !== none && !may.has('give up'))) return;
    if ((undispatched.fresh | undispatched.deferred) !== none && guards['undispatched devices are given back']) {
      this.#giveBack();
    } else if (last === 'settleBatch') {
      const answer = postgres.settleBatch(books, fence, guards);
      if (typeof answer === 'string') this.#refused('settleBatch', answer);
      else this.#write('settleBatch', answer, { run: { phase: 'left', last: 'nothing' } });
    } else if (last === 'askElsewhere' && !books.isFinished && books.fence < claims) this.#claim();
    else if (inFlight === none) this.#over('the run ends');
    else this.#add('the run ends', { run: { phase: 'left', last: 'nothing' } });
  }

  #giveBack(): void {
    const { undispatched, fence } = this.#run;
    const { guards } = this.#setting;
    const from = undispatched.fresh === none ? undefined : positionOf(undispatched.fresh);
    const books = postgres.returnReserved(this.#state.books, fence, { from, deferred: undispatched.deferred }, guards);
    this.#write('returnReserved', books, { run: { undispatched: nothingUndispatched } });
  }
}

/** A fresh device is deferred, a deferred one given back. */
function postponed({ chunk, fresh, undispatched }: Run, device: Devices): Partial<Run> {
  if ((device & fresh) !== none) return { chunk: { ...chunk, deferrals: chunk.deferrals | device } };
  return { undispatched: { ...undispatched, deferred: undispatched.deferred | device } };
}
