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
   * - `deferred`: all devices left were refused for now; call again in `waitMs`. Other batches have no reason to wait.
   * - `waiting`: no device in any batch of this provider can be sent to for `waitMs`; call again then. With a `host`: all devices
   *   left in this batch belong to that host; batches with devices of another host may go on.
   * - `stopped`: the notification's state forbids sending, or a later claim owns the batch.
   */
  status: 'finished' | 'deferred' | 'waiting' | 'stopped';
  /** 0 unless deferred or waiting; also 0 when the worker shuts down and another worker should go on at once. */
  waitMs: number;
  host?: string;
  /** Absent: all hosts can be reached. */
  unreachable?: HostInTrouble[];
  /** Devices of this batch that wait for another attempt. */
  deferred: number;
  /** Why the call ended, in a word or two, for people who look at Temporal's UI. */
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
