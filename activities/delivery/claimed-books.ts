import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Claim, isBatchFinished } from '../../db/batches.ts';
import type { DeliveryGroup } from '../../db/delivery-groups.ts';
import { listOpenEnvironments } from '../../db/device-addresses.ts';
import type { Retirement } from '../../db/devices.ts';
import { providerScope } from '../../db/rate-limits.ts';
import { isRecorded, recordDeliveries } from '../../db/record-deliveries.ts';
import type { Database } from '../../db/schema.ts';
import { type Reservation, reserveWindow, returnReserved } from '../../db/windows.ts';
import type { ApnsEnvironment } from '../../domain/device.ts';
import type { PendingDevice, Place, PlacedDeferral } from './pending.ts';

/** What is recorded together. */
export interface Chunk {
  groups: DeliveryGroup[];
  /** In all groups. */
  outcomes: number;
  retirements: Retirement[];
  /** By position. */
  deferrals: Map<number, PlacedDeferral>;
  /** Devices that were deferred and have their outcome now. */
  noLongerDeferred: Place[];
}

/** Where one run reserves and records, under its fence: a claimed batch, or a claimed lane. */
export interface ClaimedBooks {
  /** Before any of these devices is sent to. */
  reserve(devices: PendingDevice[], at: { hosts: string[]; credential: string }): Promise<Reservation>;
  /** What was reserved and never dispatched: fresh devices from `position` on, and these deferred ones. */
  giveBack(undispatched: { position: number | undefined; deferred: Place[] }): Promise<void>;
  /** @returns true when the last device has its outcome now. @throws {FencedError} */
  record(chunk: Chunk): Promise<boolean>;
  /** Whether the device at this position has its outcome already. */
  isRecorded(position: number): Promise<boolean>;
  isFinished(): Promise<boolean>;
  /** The APNs environments (null: the provider's own) of live devices without an outcome. */
  listOpenEnvironments(): Promise<(ApnsEnvironment | null)[]>;
}

/** Of a batch. */
export class BatchBooks implements ClaimedBooks {
  readonly #db: Kysely<Database>;
  readonly #pool: pg.Pool;
  readonly #claim: Claim;
  readonly #scope: string;

  constructor({ db, pool }: { db: Kysely<Database>; pool: pg.Pool }, appId: number, claim: Claim) {
    this.#db = db;
    this.#pool = pool;
    this.#claim = claim;
    this.#scope = providerScope(appId, claim.provider);
  }

  reserve(devices: PendingDevice[], at: { hosts: string[]; credential: string }): Promise<Reservation> {
    const positions: number[] = [];
    const deferredIds: number[] = [];
    for (const { deviceId, position, wasDeferred } of devices) {
      if (wasDeferred) deferredIds.push(deviceId);
      else positions.push(position);
    }
    return reserveWindow(this.#pool, this.#claim, { positions, deferredIds, providerScope: this.#scope, ...at });
  }

  giveBack({ position, deferred }: { position: number | undefined; deferred: Place[] }): Promise<void> {
    const undispatched = { position, deferredIds: deferred.map(({ deviceId }) => deviceId) };
    return this.#db.transaction().execute((trx) => returnReserved(trx, this.#claim, undispatched));
  }

  record({ groups, deferrals, noLongerDeferred, retirements }: Chunk): Promise<boolean> {
    return recordDeliveries(this.#pool, this.#claim, groups, {
      deferrals: [...deferrals.values()],
      noLongerDeferred: noLongerDeferred.map(({ deviceId }) => deviceId),
      retirements,
    });
  }

  isRecorded(position: number): Promise<boolean> {
    return isRecorded(this.#db, this.#claim, position);
  }

  isFinished(): Promise<boolean> {
    return isBatchFinished(this.#db, this.#claim);
  }

  listOpenEnvironments(): Promise<(ApnsEnvironment | null)[]> {
    return listOpenEnvironments(this.#db, this.#claim);
  }
}
