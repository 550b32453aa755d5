/**
 * The last requests in full, for tests that look at what was sent. It keeps references only; a request is formatted when asked
 * for.
 */
import type { ProviderName } from '../domain/device.ts';

export interface LoggedRequest {
  provider: ProviderName;
  listener: string;
  receivedAtMs: number;
  connection: number;
  streamId: number;
  method: string;
  path: string;
  /** Name, value, name, value … as received, pseudo-headers included. */
  headers: readonly string[];
  deviceToken: string;
  notificationId: string;
  notificationKey: string;
  body: Buffer;
  /** Length of the received body, in bytes. */
  bodyBytes: number;
}

export class RequestLog {
  #ring: (LoggedRequest | undefined)[];
  #next = 0;

  /** @param capacity Requests kept; 0 keeps none. */
  constructor(capacity: number) {
    this.#ring = new Array(capacity).fill(undefined);
  }

  get capacity(): number {
    return this.#ring.length;
  }

  add(request: LoggedRequest): void {
    if (this.#ring.length === 0) return;
    this.#ring[this.#next] = request;
    this.#next = (this.#next + 1) % this.#ring.length;
  }

  clear(): void {
    this.#ring.fill(undefined);
    this.#next = 0;
  }

  /** Oldest first. */
  list(): LoggedRequest[] {
    const ordered = [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
    return ordered.filter((request) => request !== undefined);
  }
}
