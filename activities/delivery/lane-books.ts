import type { Kysely } from 'kysely';
import type pg from 'pg';
import {
  type EndedEntry,
  isEntryEnded,
  recordEntries,
  reserveLaneWindow,
  returnReservedEntries,
} from '../../db/lane-entries.ts';
import type { LaneClaim } from '../../db/lanes.ts';
import type { Database } from '../../db/schema.ts';
import type { Reservation } from '../../db/windows.ts';
import { type ApnsEnvironment, apnsEnvironments } from '../../domain/device.ts';
import type { Chunk, ClaimedBooks } from './claimed-books.ts';
import type { LaneEntries } from './lane-entries.ts';
import type { PendingDevice, Place } from './pending.ts';

/** Of a lane. */
export class LaneBooks implements ClaimedBooks {
  readonly #db: Kysely<Database>;
  readonly #pool: pg.Pool;
  readonly #claim: LaneClaim;
  readonly #entries: LaneEntries;

  constructor({ db, pool }: { db: Kysely<Database>; pool: pg.Pool }, claim: LaneClaim, entries: LaneEntries) {
    this.#db = db;
    this.#pool = pool;
    this.#claim = claim;
    this.#entries = entries;
  }

  reserve(devices: PendingDevice[], at: { hosts: string[]; credential: string }): Promise<Reservation> {
    const { changes, settled } = this.#entries;
    const fresh = devices.filter(({ wasDeferred }) => !wasDeferred);
    const deferred = devices.filter(({ wasDeferred }) => wasDeferred);
    return reserveLaneWindow(this.#pool, this.#claim, {
      ...{ changes, settled, ...at },
      positions: fresh.map(({ position }) => position),
      deferred: deferred.map(({ position }) => this.#entries.keyAt(position)),
    });
  }

  giveBack({ position, deferred }: { position: number | undefined; deferred: Place[] }): Promise<void> {
    const keys = deferred.map((place) => this.#entries.keyAt(place.position));
    return this.#db
      .transaction()
      .execute((trx) => returnReservedEntries(trx, this.#claim, { position, deferred: keys }));
  }

  async record({ groups, deferrals, retirements }: Chunk): Promise<boolean> {
    const ended = groups.flatMap(({ positions, providerMessageIds, ...end }) =>
      positions.map((position, i): EndedEntry => {
        const { messageId, deviceId } = this.#entries.keyAt(position);
        return { ...end, messageId, deviceId, providerMessageId: providerMessageIds[i] };
      }),
    );
    const waiting = [...deferrals.values()].map((deferral) => ({
      ...deferral,
      messageId: this.#entries.keyAt(deferral.position).messageId,
    }));
    await recordEntries(this.#pool, this.#claim, ended, { deferrals: waiting, retirements });
    this.#entries.noteStored(groups.flatMap(({ positions }) => positions));
    return false;
  }

  isRecorded(position: number): Promise<boolean> {
    return isEntryEnded(this.#db, this.#entries.keyAt(position));
  }

  /** Never: further entries come. */
  async isFinished(): Promise<boolean> {
    return false;
  }

  /** Whatever is in the lane, more may come for each of them. */
  async listOpenEnvironments(): Promise<(ApnsEnvironment | null)[]> {
    return [null, ...apnsEnvironments];
  }
}
