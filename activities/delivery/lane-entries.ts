import type pg from 'pg';
import {
  type DeferredEntry,
  deferEntries,
  type EntryKey,
  listDeferredEntries,
  type OpenEntry,
  readEntries,
} from '../../db/lane-entries.ts';
import { type LaneClaim, noteLaneSeen } from '../../db/lanes.ts';
import { PayloadError, type PushProvider } from '../../providers/provider.ts';
import type { ActivityDeps } from '../activities.ts';
import type { DatabaseClock } from './database-clock.ts';
import { endByReplacement } from './end-without-request.ts';
import { type Content, isSamePart, type Pending, type PendingDevice, type PlacedDeferral } from './pending.ts';

/** An entry of the lane, on its way. */
interface LaneEntry extends PendingDevice, EntryKey {
  collapseId: string | undefined;
  /** Other messages to its device wait for it. */
  isInOrder: boolean;
}

interface LaneRun extends Pick<ActivityDeps, 'db' | 'pool'> {
  claim: LaneClaim;
  provider: PushProvider;
  clock: DatabaseClock;
}

/** Entries read at once, at most. */
const readAhead = 1_000;
/** Older ones are read again: under a low rate limit those read ahead last for minutes, and their tokens may not. */
const maxAgeMs = 5_000;
/** A lane that is busy is read no more often: what comes meanwhile shares a window. */
const gatherMs = 10;
/** A wake-up can be lost; also tells how long the lane has been without one. */
const lookEveryMs = 1_000;
const showEveryMs = 5_000;
const inOrder = 'behind_another';

/**
 * What is left of a claimed lane, and what comes: entries that wait and are due first, then the others in the order in which they were
 * accepted. Of one device, an entry waits until the one before it has its outcome or was refused for now; then one with another collapse
 * id may pass, one with the same replaces it.
 */
export class LaneEntries implements Pending {
  readonly isEndless = true;
  readonly hasUntried = false;
  readonly isAskingElsewhere = false;
  readonly clock: DatabaseClock;
  readonly #pool: pg.Pool;
  readonly #claim: LaneClaim;
  readonly #provider: PushProvider;
  /** Entries from this position on were not read. */
  #cursor: number;
  /** Where the next entry of all will stand, and what a reservation compares; as of the latest page. */
  #nextPosition = 0;
  #changes = 0;
  /** Read, and not taken: those that were deferred first. */
  #ready: LaneEntry[] = [];
  #readAt = 0;
  readonly #taken = new Map<number, LaneEntry>();
  readonly #deferred = new Map<number, DeferredEntry>();
  /** Deferred positions by device and collapse id. */
  readonly #replaceable = new Map<string, number>();
  /** How many wait in order behind another, by device. */
  readonly #behind = new Map<number, number>();
  /** Devices of entries that are ready or taken. */
  readonly #busy = new Set<number>();
  /** Kept behind another, which the books do not know yet. */
  #held: DeferredEntry[] = [];
  /** Every entry read that has no stored outcome, ascending where they were fresh. */
  readonly #open = new Map<number, EntryKey>();
  /** Given up before they were reserved, to be read again. */
  readonly #unread = new Set<number>();
  #isOver = false;
  /** Something may have come since the latest page; … */
  #isRung = true;
  /** … or was left out of it. */
  #isMore = false;
  #wake: (() => void) | undefined;
  #shownAt = Number.NEGATIVE_INFINITY;

  private constructor({ pool, claim, provider, clock }: LaneRun) {
    this.#pool = pool;
    this.#claim = claim;
    this.#provider = provider;
    this.clock = clock;
    this.#cursor = claim.horizon;
  }

  static async load(run: LaneRun): Promise<LaneEntries> {
    const lane = new LaneEntries(run);
    for (const entry of await listDeferredEntries(run.db, run.claim)) {
      lane.#open.set(entry.position, entry);
      lane.#wait(entry);
    }
    return lane;
  }

  get deferred(): number {
    return this.#deferred.size;
  }

  /** Entries that were not handed to the provider, as of the latest page. */
  get waiting(): number {
    return Math.max(0, this.#nextPosition - this.#cursor) + this.#ready.length + this.#deferred.size;
  }

  /** As of the latest page; see `LaneWindow`. */
  get changes(): number {
    return this.#changes;
  }

  /** Entries below it have their outcome. */
  get settled(): number {
    for (const position of this.#open.keys()) return position;
    return this.#cursor;
  }

  keyAt(position: number): EntryKey {
    return this.#open.get(position)!;
  }

  /** These have their outcome in the books. */
  noteStored(positions: number[]): void {
    for (const position of positions) this.#open.delete(position);
  }

  /** Something was accepted or changed. */
  ring(): void {
    this.#isRung = true;
    this.#wake?.();
  }

  end(): void {
    this.#isOver = true;
    this.#wake?.();
  }

  endElsewhere(): void {}

  async peek(size: number): Promise<PendingDevice[]> {
    while (!this.#isOver) {
      if (this.#ready.length > 0 && performance.now() - this.#readAt > maxAgeMs) this.readAgain();
      if (this.#ready.length < size && this.#isWorthALook()) await this.#read(size);
      await this.#storeHeld();
      if (this.#ready.length > 0) return this.#ready.slice(0, size);
      await this.#waitForMore();
      await this.#gather();
    }
    return [];
  }

  take(count: number): void {
    for (const entry of this.#ready.splice(0, count)) this.#taken.set(entry.position, entry);
  }

  noteTried(): void {}

  noteDone({ position }: PendingDevice): void {
    this.#free(this.#taken.get(position)!);
    this.#taken.delete(position);
  }

  defer(deferral: PlacedDeferral): void {
    const { messageId, collapseId } = this.#taken.get(deferral.position)!;
    this.#wait({ ...deferral, messageId, collapseId });
  }

  msUntilNextDeferred(): number | undefined {
    let earliest: number | undefined;
    for (const { notBefore, deviceId } of this.#deferred.values()) {
      // It is looked at again when its device is free.
      if (this.#busy.has(deviceId)) continue;
      if (earliest === undefined || notBefore.getTime() < earliest) earliest = notBefore.getTime();
    }
    return earliest === undefined ? undefined : Math.max(0, earliest - this.clock.nowMs());
  }

  hasOtherThan(part: Parameters<Pending['hasOtherThan']>[0]): boolean {
    return this.isAnyAhead(({ address }) => address !== undefined && !isSamePart(address, part));
  }

  isAnyAhead(isSuch: (device: PendingDevice) => boolean): boolean {
    return this.#ready.some(isSuch);
  }

  readAgain(): void {
    for (const entry of this.#ready.splice(0)) {
      this.#free(entry);
      if (entry.wasDeferred) this.#wait({ ...entry, notBefore: new Date(0), reason: '', httpStatus: null });
      else {
        this.#cursor = Math.min(this.#cursor, entry.position);
        this.#unread.add(entry.position);
      }
    }
    this.#isRung = true;
  }

  #isWorthALook(): boolean {
    return this.#isRung || this.#isMore || this.#findDue(1).length > 0;
  }

  async #read(size: number): Promise<void> {
    const due = this.#findDue(size - this.#ready.length);
    const limit = Math.min(readAhead, Math.max(0, size - this.#ready.length - due.length));
    this.#isRung = false;
    const sentAtMs = performance.now();
    const from = this.#cursor;
    const page = await readEntries(this.#pool, this.#claim.laneId, { from, limit, positions: due }).catch((error) => {
      this.#isRung = true;
      throw error;
    });
    // From here on nothing can fail: a read that fails is made again, and must have changed nothing.
    const { entries, changes, nextPosition, readAtMs } = page;
    this.clock.look(readAtMs, sentAtMs);
    this.#readAt = performance.now();
    this.#changes = changes;
    this.#nextPosition = nextPosition;
    const readAt = new Date(readAtMs);
    const contents = new Map<string, Content>();
    const found: LaneEntry[] = [];
    const isDue = new Set(due);
    for (const position of due) this.#busy.add(this.#unwait(position).deviceId);
    this.#isMore = entries.filter(({ position }) => position >= from).length >= limit;
    for (const row of entries) {
      const entry = this.#toEntry(row, { contents, readAt, wasDeferred: isDue.delete(row.position) });
      if (entry.wasDeferred) {
        found.push(...this.#replacedBy(entry), entry);
        continue;
      }
      this.#cursor = row.position + 1;
      // Read before, and under way, waiting, or answered and not recorded yet: an entry that waited behind another was taken ahead of these.
      if (this.#open.has(row.position) && !this.#unread.delete(row.position)) continue;
      this.#open.set(row.position, { messageId: row.messageId, deviceId: row.deviceId });
      // Kept back by a run that gave it back with the rest.
      if (row.notBefore !== null) this.#wait(deferralOf(entry, row.notBefore, row.reason ?? ''));
      else if (this.#busy.has(row.deviceId) || this.#behind.has(row.deviceId)) {
        const deferral = deferralOf(entry, new Date(0), inOrder);
        this.#wait(deferral);
        this.#held.push(deferral);
      } else {
        this.#busy.add(row.deviceId);
        found.push(...this.#replacedBy(entry), entry);
      }
    }
    // All that there is was read, whatever has ended of it.
    if (!this.#isMore) this.#cursor = Math.max(this.#cursor, nextPosition);
    // Cancelled meanwhile.
    for (const position of this.#unread) {
      if (position >= this.#cursor) continue;
      this.#unread.delete(position);
      this.#open.delete(position);
    }
    for (const position of isDue) {
      this.#busy.delete(this.#open.get(position)!.deviceId);
      this.#open.delete(position);
    }
    this.#ready.push(...found);
    this.#ready.sort((a, b) => Number(b.wasDeferred) - Number(a.wasDeferred));
  }

  /** The horizon passes them with the next window: before that the books must know that they were not sent to. */
  async #storeHeld(): Promise<void> {
    if (this.#held.length === 0) return;
    await deferEntries(this.#pool, this.#claim, this.#held);
    this.#held = [];
  }

  /** Positions of up to `count` entries that waited and whose time has come; of one device the first. */
  #findDue(count: number): number[] {
    const now = this.clock.nowMs();
    const due = new Map<number, number>();
    for (const [position, { deviceId, notBefore }] of this.#deferred) {
      if (due.size >= count) break;
      // Given up with those before it: it is read again with them, in order.
      if (position >= this.#cursor) continue;
      if (notBefore.getTime() <= now && !this.#busy.has(deviceId) && !due.has(deviceId)) due.set(deviceId, position);
    }
    return [...due.values()];
  }

  /** The earlier message to the device with the same collapse id, which was refused for now. */
  #replacedBy({ position: own, deviceId, collapseId, content, readAt }: LaneEntry): LaneEntry[] {
    if (collapseId === undefined) return [];
    const position = this.#replaceable.get(`${deviceId} ${collapseId}`);
    // A crash between the two leaves both in doubt: the earlier must not take the place of the later.
    if (position === undefined || position > own) return [];
    const { attempts, excused, doubts, refusedAt, messageId } = this.#unwait(position);
    return [
      {
        ...{ position, messageId, deviceId, collapseId, content, readAt, attempts, excused, doubts, refusedAt },
        ...{ wasDeferred: true, endsAs: endByReplacement(doubts), isInOrder: false },
        ...{ address: undefined, reached: undefined, requestNumber: 0 },
      },
    ];
  }

  #toEntry(
    row: OpenEntry,
    { contents, readAt, wasDeferred }: { contents: Map<string, Content>; readAt: Date; wasDeferred: boolean },
  ): LaneEntry {
    const { position, messageId, deviceId, attempts, excused, doubts, refusedAt, address } = row;
    let content = contents.get(messageId);
    if (content === undefined) {
      content = this.#prepare(row);
      contents.set(messageId, content);
    }
    return {
      ...{ position, messageId, deviceId, attempts, excused, doubts, refusedAt, address, content, readAt, wasDeferred },
      ...{ collapseId: row.message.collapseId, isInOrder: true, reached: undefined, requestNumber: 0 },
    };
  }

  #prepare({ messageId, message, expiresAt, inDoubtPolicy }: OpenEntry): Content {
    try {
      const isKept = expiresAt !== null && message.ttlSeconds !== 0;
      const content = { notificationId: messageId, message, ...(isKept && { expiresAt }) };
      return { prepared: this.#provider.prepare(content, this.clock.nowMs), expiresAt, inDoubtPolicy };
    } catch (error) {
      if (!(error instanceof PayloadError)) throw error;
      return { prepared: error, expiresAt, inDoubtPolicy };
    }
  }

  #wait(entry: DeferredEntry): void {
    const { position, deviceId, collapseId, reason } = entry;
    this.#deferred.set(position, entry);
    if (reason === inOrder) this.#behind.set(deviceId, (this.#behind.get(deviceId) ?? 0) + 1);
    else if (collapseId !== undefined) this.#replaceable.set(`${deviceId} ${collapseId}`, position);
  }

  #unwait(position: number): DeferredEntry {
    const entry = this.#deferred.get(position)!;
    const { deviceId, collapseId, reason } = entry;
    this.#deferred.delete(position);
    if (reason === inOrder) {
      const left = this.#behind.get(deviceId)! - 1;
      if (left > 0) this.#behind.set(deviceId, left);
      else this.#behind.delete(deviceId);
    } else if (this.#replaceable.get(`${deviceId} ${collapseId}`) === position) {
      this.#replaceable.delete(`${deviceId} ${collapseId}`);
    }
    return entry;
  }

  #free({ deviceId, isInOrder }: LaneEntry): void {
    if (!isInOrder) return;
    this.#busy.delete(deviceId);
    if (this.#deferred.size > 0) this.#wake?.();
  }

  async #gather(): Promise<void> {
    const waitMs = gatherMs - (performance.now() - this.#readAt);
    if (waitMs > 0 && !this.#isOver) await new Promise((resolve) => setTimeout(resolve, waitMs));
  }

  /** Until something is accepted, a deferred entry is due, or it is time for a look. */
  async #waitForMore(): Promise<void> {
    if (this.#isRung || this.#isOver) return;
    await new Promise<void>((resolve) => {
      const look = () => {
        this.#isRung = true;
        resolve();
      };
      const timer = setTimeout(look, Math.min(lookEveryMs, Math.ceil(this.msUntilNextDeferred() ?? lookEveryMs)));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
    if (performance.now() - this.#shownAt < showEveryMs) return;
    this.#shownAt = performance.now();
    await noteLaneSeen(this.#pool, this.#claim);
  }
}

function deferralOf(entry: LaneEntry, notBefore: Date, reason: string): DeferredEntry {
  const { position, messageId, deviceId, collapseId, attempts, excused, doubts, refusedAt } = entry;
  return {
    ...{ position, messageId, deviceId, collapseId, attempts, excused, doubts, refusedAt, notBefore, reason },
    httpStatus: null,
  };
}
