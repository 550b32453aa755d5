import type { ProviderName } from './device.ts';
import type { Books } from './notification.ts';

/** What workflows and activities tell each other about a batch: ids and counts, never a device or its token. */
export interface DeliverBatchInput {
  notificationId: string;
  seq: number;
  provider: ProviderName;
  /** Devices. */
  size: number;
}

export interface DeliverBatchResult {
  /**
   * - `finished`: every device of the batch has its outcome.
   * - `deferred`: everybody left was refused for now; call again in `waitMs`. Other batches have no reason to wait.
   * - `waiting`: nobody can be sent to for `waitMs`, in no batch of this provider; call again then. With a `host`: everybody left
   *   in this batch is sent to by that one, and others may be sent to by another.
   * - `stopped`: the notification's state forbids sending, or a later claim owns the batch.
   */
  status: 'finished' | 'deferred' | 'waiting' | 'stopped';
  /** 0 unless deferred or waiting; also 0 when the worker shuts down and another should go on at once. */
  waitMs: number;
  host?: string;
  /** Absent: all can be reached. */
  unreachable?: HostInTrouble[];
  /** Devices of this batch that wait for another attempt. */
  deferred: number;
  /** Why, in a word or two, for people who look at Temporal's UI. */
  reason: string;
  /** The whole notification's books when this call ended. */
  books: Books;
}

/** A host of a provider that cannot be reached, for people who look at Temporal's UI. */
export interface HostInTrouble {
  provider: ProviderName;
  host: string;
  /** ISO 8601. */
  since: string;
  error: string;
}
