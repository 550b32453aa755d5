import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Claim, lockBatch, positionOf } from '../../db/batches.ts';
import { readDatabaseClock } from '../../db/clock.ts';
import type { DatabaseHandle } from '../../db/connect.ts';
import { type Deferral, listDeferrals, storeDeferrals } from '../../db/deferrals.ts';
import { type Address, listAddresses } from '../../db/device-addresses.ts';
import type { Database } from '../../db/schema.ts';
import { listReachedBefore } from '../../db/token-departures.ts';
import type { DatabaseClock } from './database-clock.ts';
import { type Content, isSamePart, type Pending, type PendingDevice } from './pending.ts';

/** What is the same for all batches of a send. */
interface Launch {
  appId: number;
  launchedAt: Date;
}

interface LoadInput extends Pick<DatabaseHandle, 'db' | 'pool'> {
  launch: Launch;
  claim: Claim;
  clock: DatabaseClock;
  content: Content;
}

/** Addresses read at once, shortly before they are sent to. */
const readAhead = 2_000;
/** Older ones are read again: under a low rate limit the devices read ahead last for minutes, and their tokens may not. */
const maxAddressAgeMs = 5_000;

/**
 * What is left of a claimed batch: first the devices never tried, in the order of the frozen array, then those deferred
 * before, once their time has come. Devices that may have got the message by an earlier claim are among the latter.
 */
export class PendingDevices implements Pending {
  readonly isEndless = false;
  readonly #db: Kysely<Database>;
  readonly #pool: pg.Pool;
  readonly #launch: Launch;
  readonly #claim: Claim;
  readonly #content: Content;
  readonly clock: DatabaseClock;
  /** Positions without an outcome and without a deferral, ascending. */
  #open: number[] = [];
  #openAt = 0;
  /** Devices never tried that were taken and not sent to yet. */
  #takenUntried = 0;
  readonly #deferred = new Map<number, Deferral>();
  /** Devices asked before all others; see `askElsewhere`. */
  #elsewhere: Set<number> | undefined;
  #buffer: PendingDevice[] = [];

  private constructor({ db, pool, launch, claim, clock, content }: LoadInput) {
    this.#db = db;
    this.#pool = pool;
    this.#launch = launch;
    this.#claim = claim;
    this.#content = content;
    this.clock = clock;
  }

  static async load(input: LoadInput): Promise<PendingDevices> {
    const { db, pool, claim, clock } = input;
    const pending = new PendingDevices(input);
    const sentAtMs = performance.now();
    clock.look(await readDatabaseClock(pool), sentAtMs);
    // A batch without a window so far has no deferrals: no need to ask.
    if (claim.horizon > 0) {
      for (const deferral of await listDeferrals(db, claim.notificationId, claim.seq)) {
        pending.#deferred.set(deferral.deviceId, deferral);
      }
    }
    claim.deviceIds.forEach((deviceId, position) => {
      if (claim.recorded[position] === '0' && !pending.#deferred.has(deviceId)) pending.#open.push(position);
    });
    return pending;
  }

  get deferred(): number {
    return this.#deferred.size + this.#buffer.filter((device) => device.wasDeferred).length;
  }

  defer(deferral: Deferral): void {
    this.#deferred.set(deferral.deviceId, deferral);
  }

  msUntilNextDeferred(): number | undefined {
    let earliest: number | undefined;
    for (const { notBefore } of this.#deferred.values()) {
      if (earliest === undefined || notBefore.getTime() < earliest) earliest = notBefore.getTime();
    }
    return earliest === undefined ? undefined : Math.max(0, earliest - this.clock.nowMs());
  }

  hasOtherThan(part: Pick<Address, 'platform' | 'apnsEnvironment'>): boolean {
    return this.#buffer.some(({ address }) => address !== undefined && !isSamePart(address, part));
  }

  /** Whether devices of the batch have not been tried yet. */
  get hasUntried(): boolean {
    const isSomeAhead = this.#openAt < this.#open.length || this.#takenUntried > 0;
    return isSomeAhead || this.#buffer.some(({ wasDeferred }) => !wasDeferred);
  }

  /**
   * Brings up to `count` devices forward, from all over the part of the batch that was never tried. They are deferrals from now
   * on, as the horizon, which tells tried devices from untried ones, knows no gaps. Until `endElsewhere` only they are sent to.
   */
  async askElsewhere(db: Kysely<Database>, count: number): Promise<void> {
    const step = Math.max(1, this.#open.length / count);
    const chosen = new Set<number>();
    // From the end, so that the first one is not the neighbour of those that were asked before.
    for (let at = this.#open.length - 1; at >= 0 && chosen.size < count; at -= step)
      chosen.add(this.#open[Math.floor(at)]!);
    const deferrals = [...chosen].map((position) => ({
      ...{ deviceId: this.#claim.deviceIds[position]!, notBefore: new Date(0), attempts: 0, excused: 0, doubts: 0 },
      refusedAt: null,
      ...{ reason: 'asked_elsewhere', httpStatus: null },
    }));
    await db.transaction().execute(async (trx) => {
      await lockBatch(trx, this.#claim);
      await storeDeferrals(trx, this.#claim, deferrals);
    });
    this.#open = this.#open.filter((position) => !chosen.has(position));
    for (const deferral of deferrals) this.#deferred.set(deferral.deviceId, deferral);
    this.#elsewhere = new Set(deferrals.map(({ deviceId }) => deviceId));
  }

  get isAskingElsewhere(): boolean {
    return this.#elsewhere !== undefined;
  }

  endElsewhere(): void {
    this.#elsewhere = undefined;
  }

  isAnyAhead(isSuch: (device: PendingDevice) => boolean): boolean {
    return this.#buffer.some(isSuch);
  }

  /** Of one kind, fresh or deferred. */
  async peek(size: number): Promise<PendingDevice[]> {
    if (this.#elsewhere === undefined && this.#buffer.length < size && this.#openAt < this.#open.length) {
      await this.#readFresh();
    }
    if (this.#buffer.length === 0) await this.#readDue(size);
    const [oldest] = this.#buffer;
    if (oldest !== undefined && this.clock.nowMs() - oldest.readAt.getTime() > maxAddressAgeMs)
      await this.#readAddressesAgain();
    return this.#buffer.slice(0, size);
  }

  take(count: number): void {
    for (const { wasDeferred } of this.#buffer.splice(0, count)) if (!wasDeferred) this.#takenUntried += 1;
  }

  noteTried({ wasDeferred }: PendingDevice): void {
    if (!wasDeferred) this.#takenUntried -= 1;
  }

  // Nothing follows another in a batch, and nobody changes it meanwhile.
  noteDone(): void {}
  readAgain(): void {}
  end(): void {}

  async #readFresh(): Promise<void> {
    const positions = this.#open.slice(this.#openAt, this.#openAt + readAhead);
    const deviceIds = positions.map((position) => this.#claim.deviceIds[position]!);
    const { addresses, reached, readAt } = await this.#readAddresses(deviceIds);
    this.#openAt += positions.length;
    for (let i = 0; i < positions.length; i++) {
      this.#buffer.push({
        deviceId: deviceIds[i]!,
        position: positions[i]!,
        wasDeferred: false,
        content: this.#content,
        address: addresses.get(deviceIds[i]!),
        reached: reached?.get(deviceIds[i]!),
        readAt,
        attempts: 0,
        excused: 0,
        doubts: 0,
        refusedAt: null,
        requestNumber: 0,
      });
    }
  }

  async #readAddresses(deviceIds: number[]) {
    const sentAtMs = performance.now();
    const { launchedAt } = this.#launch;
    const { addresses, readAtMs } = await listAddresses(this.#pool, this.#claim.provider, deviceIds, launchedAt);
    this.clock.look(readAtMs, sentAtMs);
    const newOnes = [];
    for (const [deviceId, { isNew, deviceToken }] of addresses) if (isNew) newOnes.push({ deviceId, deviceToken });
    const notification = { ...this.#launch, id: this.#claim.notificationId };
    const reached = newOnes.length === 0 ? undefined : await listReachedBefore(this.#db, notification, newOnes);
    return { addresses, reached, readAt: new Date(readAtMs) };
  }

  async #readAddressesAgain(): Promise<void> {
    const deviceIds = this.#buffer.map(({ deviceId }) => deviceId);
    const { addresses, reached, readAt } = await this.#readAddresses(deviceIds);
    this.#buffer = this.#buffer.map((device) => ({
      ...device,
      address: addresses.get(device.deviceId),
      reached: reached?.get(device.deviceId),
      readAt,
    }));
  }

  async #readDue(size: number): Promise<void> {
    const now = this.clock.nowMs();
    const due: Deferral[] = [];
    for (const deferral of this.#deferred.values()) {
      if (this.#elsewhere?.has(deferral.deviceId) === false) continue;
      if (deferral.notBefore.getTime() <= now) due.push(deferral);
      if (due.length === size) break;
    }
    if (due.length === 0) return;
    const { addresses, reached, readAt } = await this.#readAddresses(due.map((deferral) => deferral.deviceId));
    for (const { deviceId, attempts, excused, doubts, refusedAt } of due) {
      this.#deferred.delete(deviceId);
      this.#buffer.push({
        deviceId,
        position: positionOf(this.#claim, deviceId),
        wasDeferred: true,
        content: this.#content,
        address: addresses.get(deviceId),
        reached: reached?.get(deviceId),
        readAt,
        attempts,
        excused,
        doubts,
        refusedAt,
        requestNumber: 0,
      });
    }
  }
}
