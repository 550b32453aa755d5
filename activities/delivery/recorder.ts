import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Claim, isBatchFinished } from '../../db/batches.ts';
import { isRefusedByDatabase } from '../../db/database-error.ts';
import type { Deferral } from '../../db/deferrals.ts';
import { addToGroups, type DeliveryGroup, type Ended } from '../../db/delivery-groups.ts';
import type { Retirement } from '../../db/devices.ts';
import { isRecorded, recordDeliveries } from '../../db/record-deliveries.ts';
import { retryDatabase } from '../../db/retry-database.ts';
import type { Database } from '../../db/schema.ts';
import type { PendingDevice } from './pending-devices.ts';
import type { Run } from './run.ts';

/** A chunk is written when it has so many outcomes, or as many as one window, or when its first one is so old. */
const maxChunkSize = 500;
const chunkMs = 100;

interface Chunk {
  groups: DeliveryGroup[];
  /** In all groups. */
  outcomes: number;
  retirements: Retirement[];
  deferrals: Map<number, Deferral>;
  /** Devices that were deferred and have their outcome now. */
  noLongerDeferred: number[];
}

/**
 * Streams outcomes to the books, one statement a chunk, one chunk at a time. While PostgreSQL is away it keeps trying and
 * `room` holds the windows back; what cannot be written at all, as when a later claim owns the batch, goes to `onFailure`, and
 * nothing more is written.
 */
export class Recorder {
  readonly #db: Kysely<Database>;
  readonly #pool: pg.Pool;
  readonly #claim: Claim;
  readonly #giveUp: AbortSignal;
  readonly #onFailure: (error: unknown) => void;
  readonly #chunkSize: number;
  #chunk = emptyChunk();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #unwritten = 0;
  #failure: unknown;
  #roomWaiters: (() => void)[] = [];
  /** True once every device of the batch has its outcome. */
  isFinished = false;

  constructor({ db, pool, claim, config, giveUp }: Run, onFailure: (error: unknown) => void) {
    this.#db = db;
    this.#pool = pool;
    this.#claim = claim;
    this.#chunkSize = Math.min(maxChunkSize, config.windowSize);
    this.#giveUp = giveUp;
    this.#onFailure = onFailure;
  }

  add(
    { deviceId, position, wasDeferred }: PendingDevice,
    ended: Ended,
    { providerMessageId, retirement }: { providerMessageId: string | undefined; retirement: Retirement | undefined },
  ): void {
    addToGroups(this.#chunk.groups, ended, position, providerMessageId);
    this.#chunk.outcomes += 1;
    if (wasDeferred) this.#chunk.noLongerDeferred.push(deviceId);
    if (retirement) this.#chunk.retirements.push(retirement);
    this.#grow();
  }

  defer(deferral: Deferral): void {
    this.#chunk.deferrals.set(deferral.deviceId, deferral);
    this.#grow();
  }

  /** Resolves when fewer than `limit` outcomes are unwritten, or when nothing will be written any more. */
  async room(limit: number): Promise<void> {
    while (this.#unwritten >= limit && this.#failure === undefined) {
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
  }

  /** Writes all that was added. @throws what kept a chunk from being written. */
  async flush(): Promise<void> {
    while (this.#failure === undefined && (this.#writing !== undefined || !isEmpty(this.#chunk))) {
      this.#write();
      await this.#writing;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #grow(): void {
    this.#unwritten += 1;
    if (this.#unwritten >= this.#chunkSize) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), chunkMs);
  }

  #write(): void {
    if (this.#writing !== undefined || this.#failure !== undefined || isEmpty(this.#chunk)) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const chunk = this.#chunk;
    this.#chunk = emptyChunk();
    this.#writing = this.#store(chunk)
      .then(() => {
        this.#unwritten -= chunk.outcomes + chunk.deferrals.size;
      })
      .catch((error: unknown) => {
        this.#failure = error;
        this.#onFailure(error);
      })
      .finally(() => {
        this.#writing = undefined;
        for (const wake of this.#roomWaiters.splice(0)) wake();
        if (this.#unwritten >= this.#chunkSize) this.#write();
        else if (!isEmpty(this.#chunk)) this.#timer ??= setTimeout(() => this.#write(), chunkMs);
      });
  }

  async #store(chunk: Chunk): Promise<void> {
    let isRetry = false;
    // The connection may have broken after the commit: a chunk is stored whole or not at all, so one device tells.
    const isStored = async () => isRetry && (await this.#isStored(chunk));
    this.isFinished = await retryDatabase(async () => {
      if (await isStored()) return isBatchFinished(this.#db, this.#claim);
      try {
        return await this.#insert(chunk);
      } catch (error) {
        // The try before may have been carried out only now.
        if (isRefusedByDatabase(error) && (await isStored())) return isBatchFinished(this.#db, this.#claim);
        throw error;
      } finally {
        isRetry = true;
      }
    }, this.#giveUp);
  }

  /** @returns true when the last device of the batch has its outcome now */
  #insert(chunk: Chunk): Promise<boolean> {
    const { groups, deferrals, noLongerDeferred, retirements } = chunk;
    const alongWith = { deferrals: [...deferrals.values()], noLongerDeferred, retirements };
    return recordDeliveries(this.#pool, this.#claim, groups, alongWith);
  }

  async #isStored(chunk: Chunk): Promise<boolean> {
    const [first] = chunk.groups;
    return first !== undefined && (await isRecorded(this.#db, this.#claim, first.positions[0]!));
  }
}

function emptyChunk(): Chunk {
  return { groups: [], outcomes: 0, retirements: [], deferrals: new Map(), noLongerDeferred: [] };
}

function isEmpty(chunk: Chunk): boolean {
  return chunk.outcomes === 0 && chunk.deferrals.size === 0;
}
