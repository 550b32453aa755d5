import { isRefusedByDatabase } from '../../db/database-error.ts';
import { addToGroups, type Ended } from '../../db/delivery-groups.ts';
import type { Retirement } from '../../db/devices.ts';
import { retryDatabase } from '../../db/retry-database.ts';
import type { ProviderName } from '../../domain/device.ts';
import { countDeferrals, countRecorded, countRetirements } from '../../telemetry/delivery-metrics.ts';
import type { Chunk, ClaimedBooks } from './claimed-books.ts';
import type { PendingDevice, PlacedDeferral } from './pending.ts';
import type { Run } from './run.ts';

/** A chunk is written when it has so many outcomes, or as many as one window, or when its first one is so old. */
const maxChunkSize = 500;
const chunkMs = 100;
/** In a lane somebody may be waiting for each: at once, unless they are many. */
const laneChunkMs = 20;
const laneQuietMs = 50;

/**
 * Streams outcomes to the books, one statement a chunk, one chunk at a time. While PostgreSQL is away it keeps trying and
 * `room` holds the windows back; what cannot be written at all, as when a later claim owns the batch, goes to `onFailure`, and
 * nothing more is written.
 */
export class Recorder {
  readonly #books: ClaimedBooks;
  readonly #whose: { app: string; provider: ProviderName };
  readonly #isLane: boolean;
  readonly #giveUp: AbortSignal;
  readonly #onFailure: (error: unknown) => void;
  readonly #chunkSize: number;
  #chunk = emptyChunk();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #unwritten = 0;
  #writtenAt = Number.NEGATIVE_INFINITY;
  #failure: unknown;
  #roomWaiters: (() => void)[] = [];
  /** True once every device of the batch has its outcome. */
  isFinished = false;

  constructor({ books, app, provider, pending, config, giveUp }: Run, onFailure: (error: unknown) => void) {
    this.#books = books;
    this.#whose = { app, provider: provider.name };
    this.#isLane = pending.isEndless;
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
    if (wasDeferred) this.#chunk.noLongerDeferred.push({ deviceId, position });
    if (retirement) this.#chunk.retirements.push(retirement);
    this.#grow();
  }

  defer(deferral: PlacedDeferral): void {
    this.#chunk.deferrals.set(deferral.position, deferral);
    this.#grow();
  }

  /** Fewer than `limit` outcomes are unwritten, or nothing will be written any more. */
  hasRoom(limit: number): boolean {
    return this.#unwritten < limit || this.#failure !== undefined;
  }

  /** Resolves when `hasRoom`. */
  async room(limit: number): Promise<void> {
    while (!this.hasRoom(limit)) {
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
    else this.#writeSoon();
  }

  #writeSoon(): void {
    this.#timer ??= setTimeout(() => {
      // Also where a chunk is still being written: the next one is thought of when that is done.
      this.#timer = undefined;
      this.#write();
    }, this.#chunkMs);
  }

  get #chunkMs(): number {
    if (!this.#isLane) return chunkMs;
    return performance.now() - this.#writtenAt > laneQuietMs ? 0 : laneChunkMs;
  }

  #write(): void {
    if (this.#writing !== undefined || this.#failure !== undefined || isEmpty(this.#chunk)) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const chunk = this.#chunk;
    this.#chunk = emptyChunk();
    this.#writtenAt = performance.now();
    this.#writing = this.#store(chunk)
      .then(() => {
        this.#unwritten -= chunk.outcomes + chunk.deferrals.size;
        for (const group of chunk.groups) countRecorded(this.#whose, group, group.positions.length);
        countDeferrals(this.#whose, chunk.deferrals.values());
        countRetirements(this.#whose, chunk.retirements.length);
      })
      .catch((error: unknown) => {
        this.#failure = error;
        this.#onFailure(error);
      })
      .finally(() => {
        this.#writing = undefined;
        for (const wake of this.#roomWaiters.splice(0)) wake();
        if (this.#unwritten >= this.#chunkSize) this.#write();
        else if (!isEmpty(this.#chunk)) this.#writeSoon();
      });
  }

  async #store(chunk: Chunk): Promise<void> {
    let isRetry = false;
    // The connection may have broken after the commit: a chunk is stored whole or not at all, so one device tells.
    const isStored = async () => isRetry && (await this.#isStored(chunk));
    this.isFinished = await retryDatabase(async () => {
      if (await isStored()) return this.#books.isFinished();
      try {
        return await this.#books.record(chunk);
      } catch (error) {
        // The try before may have been carried out only now.
        if (isRefusedByDatabase(error) && (await isStored())) return this.#books.isFinished();
        throw error;
      } finally {
        isRetry = true;
      }
    }, this.#giveUp);
  }

  async #isStored(chunk: Chunk): Promise<boolean> {
    const [first] = chunk.groups;
    return first !== undefined && (await this.#books.isRecorded(first.positions[0]!));
  }
}

function emptyChunk(): Chunk {
  return { groups: [], outcomes: 0, retirements: [], deferrals: new Map(), noLongerDeferred: [] };
}

function isEmpty(chunk: Chunk): boolean {
  return chunk.outcomes === 0 && chunk.deferrals.size === 0;
}
