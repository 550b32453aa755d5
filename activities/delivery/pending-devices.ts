import type pg from 'pg';
import type { Claim } from '../../db/batches.ts';
import type { DatabaseHandle } from '../../db/connect.ts';
import { type Deferral, listDeferrals, noteDoubts } from '../../db/deferrals.ts';
import { listRecordedDeviceIds } from '../../db/deliveries.ts';
import { type Address, listAddresses } from '../../db/device-addresses.ts';
import type { Platform } from '../../domain/device.ts';

/** A device of the batch that has no outcome yet. */
export interface PendingDevice {
  deviceId: number;
  /** Its place in the batch's frozen array; undefined for a device that was deferred before. */
  position: number | undefined;
  /** Undefined: the device was deleted, retired or moved to another provider since the audience was frozen. */
  address: Address | undefined;
  /** When the address was read: a registration after this instant is not the one that was sent to. */
  readAt: Date;
  /** Attempts before this one. */
  attempts: number;
  /** How many of them ended without an answer. */
  doubts: number;
  /** The provider may have got the message by an earlier attempt. */
  isInDoubt: boolean;
}

/** Addresses read at once, shortly before they are sent to. */
const readAhead = 2_000;
/** Older ones are read again: under a low rate limit the devices read ahead last for minutes, and their tokens may not. */
const maxAddressAgeMs = 5_000;

/**
 * What is left of a claimed batch: first the devices never tried, in the order of the frozen array, then those deferred
 * before, once their time has come. Who may have got the message by an earlier claim is among the latter.
 */
export class PendingDevices {
  readonly #pool: pg.Pool;
  readonly #claim: Claim;
  /** Positions without an outcome and without a deferral, ascending. */
  #open: number[] = [];
  #openAt = 0;
  readonly #deferred = new Map<number, Deferral>();
  #buffer: PendingDevice[] = [];

  private constructor(pool: pg.Pool, claim: Claim) {
    this.#pool = pool;
    this.#claim = claim;
  }

  static async load({ db, pool }: DatabaseHandle, claim: Claim): Promise<PendingDevices> {
    const pending = new PendingDevices(pool, claim);
    // A batch that nobody touched has neither outcomes nor deferrals: no need to ask.
    const isFresh = claim.horizon === 0;
    await noteDoubts(db, claim);
    const recorded = isFresh ? undefined : new Set(await listRecordedDeviceIds(db, claim));
    if (!isFresh) {
      for (const deferral of await listDeferrals(db, claim.notificationId, claim.seq)) {
        pending.#deferred.set(deferral.deviceId, deferral);
      }
    }
    claim.deviceIds.forEach((deviceId, position) => {
      if (!recorded?.has(deviceId) && !pending.#deferred.has(deviceId)) pending.#open.push(position);
    });
    return pending;
  }

  /** Devices that wait for a later attempt. */
  get deferred(): number {
    return this.#deferred.size + this.#buffer.filter((device) => device.position === undefined).length;
  }

  /** A device is deferred, again or for the first time. */
  defer(deferral: Deferral): void {
    this.#deferred.set(deferral.deviceId, deferral);
  }

  /** Milliseconds until the next deferred device may be tried; undefined: nobody waits. */
  msUntilNextDeferred(now: number): number | undefined {
    let earliest: number | undefined;
    for (const { notBefore } of this.#deferred.values()) {
      if (earliest === undefined || notBefore.getTime() < earliest) earliest = notBefore.getTime();
    }
    return earliest === undefined ? undefined : Math.max(0, earliest - now);
  }

  /** Whether devices of another platform are among those that come next. */
  hasOtherThan(platform: Platform): boolean {
    return this.#buffer.some(({ address }) => address !== undefined && address.platform !== platform);
  }

  /** Whether one of those that come next is such. */
  isAnyAhead(isSuch: (device: PendingDevice) => boolean): boolean {
    return this.#buffer.some(isSuch);
  }

  /** Up to `size` devices of one kind, fresh or deferred, not yet taken; empty: nothing can be sent now. */
  async peek(size: number): Promise<PendingDevice[]> {
    if (this.#buffer.length < size && this.#openAt < this.#open.length) {
      await this.#readFresh();
    }
    if (this.#buffer.length === 0) await this.#readDue(size);
    const [oldest] = this.#buffer;
    if (oldest !== undefined && Date.now() - oldest.readAt.getTime() > maxAddressAgeMs) await this.#readAgain();
    return this.#buffer.slice(0, size);
  }

  /** The first `count` of the devices last peeked at are taken. */
  take(count: number): void {
    this.#buffer.splice(0, count);
  }

  async #readFresh(): Promise<void> {
    const positions = this.#open.slice(this.#openAt, this.#openAt + readAhead);
    const readAt = new Date();
    const deviceIds = positions.map((position) => this.#claim.deviceIds[position]!);
    const addresses = await listAddresses(this.#pool, this.#claim.provider, deviceIds);
    this.#openAt += positions.length;
    for (let i = 0; i < positions.length; i++) {
      this.#buffer.push({
        deviceId: deviceIds[i]!,
        position: positions[i]!,
        address: addresses.get(deviceIds[i]!),
        readAt,
        attempts: 0,
        doubts: 0,
        isInDoubt: false,
      });
    }
  }

  async #readAgain(): Promise<void> {
    const readAt = new Date();
    const deviceIds = this.#buffer.map(({ deviceId }) => deviceId);
    const addresses = await listAddresses(this.#pool, this.#claim.provider, deviceIds);
    this.#buffer = this.#buffer.map((device) => ({ ...device, address: addresses.get(device.deviceId), readAt }));
  }

  async #readDue(size: number): Promise<void> {
    const now = Date.now();
    const due: Deferral[] = [];
    for (const deferral of this.#deferred.values()) {
      if (deferral.notBefore.getTime() <= now) due.push(deferral);
      if (due.length === size) break;
    }
    if (due.length === 0) return;
    const readAt = new Date();
    const addresses = await listAddresses(
      this.#pool,
      this.#claim.provider,
      due.map((deferral) => deferral.deviceId),
    );
    for (const { deviceId, attempts, doubts } of due) {
      this.#deferred.delete(deviceId);
      this.#buffer.push({
        deviceId,
        position: undefined,
        address: addresses.get(deviceId),
        readAt,
        attempts,
        doubts,
        isInDoubt: doubts > 0,
      });
    }
  }
}
