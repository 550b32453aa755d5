import type pg from 'pg';
import type { Logger } from '../domain/logger.ts';
import { pause } from '../domain/pause.ts';

/** After a broken connection, milliseconds until the next try. */
const retryMs = 1_000;

/**
 * Hears within milliseconds that something was accepted for a lane: `accept_messages` notifies its channel. One connection for all lanes
 * of a process. Where none can be had, or a pooler swallows notifications, lanes look by themselves, a second later.
 */
export class LaneBell {
  readonly #listeners = new Map<number, Set<() => void>>();
  readonly #onUnheard: (laneId: number) => void;

  /** `onUnheard`: something was accepted for a lane that nobody here listens to. */
  constructor(onUnheard: (laneId: number) => void = () => {}) {
    this.#onUnheard = onUnheard;
  }

  /** How many lanes are listened for. */
  get lanes(): number {
    return this.#listeners.size;
  }

  /** @returns a function that ends it */
  onRing(laneId: number, listener: () => void): () => void {
    const listeners = this.#listeners.get(laneId) ?? new Set();
    this.#listeners.set(laneId, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(laneId);
    };
  }

  /** Listens until `signal` is aborted. */
  async listen(pool: pg.Pool, log: Logger, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#listenOnce(pool, signal);
      } catch (err) {
        log.warn({ err }, 'lanes are not woken for a moment');
        await pause(retryMs, signal);
      }
    }
  }

  async #listenOnce(pool: pg.Pool, signal: AbortSignal): Promise<void> {
    const client = await pool.connect();
    const ended = Promise.withResolvers<Error | undefined>();
    const onAbort = () => ended.resolve(undefined);
    signal.addEventListener('abort', onAbort);
    // While the connection was being made.
    if (signal.aborted) onAbort();
    client.on('error', ended.resolve);
    client.on('end', () => ended.resolve(new Error('the connection ended')));
    client.on('notification', ({ payload }) => this.#ring(Number(payload)));
    let broken: Error | undefined;
    try {
      await client.query('listen carillon_lanes');
      // What came while nobody listened.
      for (const laneId of this.#listeners.keys()) this.#ring(laneId);
      broken = await ended.promise;
      if (broken !== undefined) throw broken;
    } finally {
      signal.removeEventListener('abort', onAbort);
      // Not back into the pool: it would go on listening.
      client.release(broken ?? true);
    }
  }

  #ring(laneId: number): void {
    const listeners = this.#listeners.get(laneId);
    if (listeners === undefined) this.#onUnheard(laneId);
    else for (const listener of listeners) listener();
  }
}
