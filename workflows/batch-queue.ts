import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import type { ProviderName } from '../domain/device.ts';
import { exhausted } from '../domain/never.ts';

export type Batch = Omit<DeliverBatchInput, 'notificationId'>;

/** What a run that continues as new knows: milliseconds since 1970 before which it is no use to start a batch. */
export interface Waits {
  /** By seq. */
  batches: Record<number, number>;
  /** Those that a batch was last kept waiting by, also when that time is over: one batch at a time tries. */
  providers: Partial<Record<ProviderName, number>>;
}

interface Entry {
  batch: Batch;
  /** 0: has not been started yet. */
  dueAt: number;
  /** All devices left in the batch are sent to by this host: the batch goes on when another one finds the host free. */
  host?: Gate;
}

/** A provider or a host, as the reports of batches tell it: while it is blocked, one batch at a time tries. */
class Gate {
  /** Undefined: free. */
  blockedUntil: number | undefined;
  /** Batches under way whose reports will tell. */
  open = 0;

  /** Infinity: not before an open batch has reported. */
  get freeAt(): number {
    if (this.blockedUntil === undefined) return 0;
    return this.open > 0 ? Number.POSITIVE_INFINITY : this.blockedUntil;
  }
}

/**
 * Which batch of a send is started next, and when. Pure: time comes in, batches and their reports come in, and the same
 * sequence always gives the same answers, as a workflow's replay needs.
 *
 * A batch is started again until it reports that it is finished. One that was refused for now waits for its own time. A provider
 * that nobody can be sent to keeps its own batches waiting, not the other's; a host, those that have devices for no other host.
 */
export class BatchQueue {
  readonly #fresh: Entry[] = [];
  readonly #waiting: Entry[] = [];
  /** By seq. */
  readonly #open = new Map<number, Entry>();
  readonly #providers = new Map<ProviderName, Gate>();
  readonly #hosts = new Map<string, Gate>();
  /** Of the run before. */
  readonly #carriedOver: Waits['batches'];

  constructor(waits?: Waits) {
    this.#carriedOver = waits?.batches ?? {};
    for (const [provider, until] of Object.entries(waits?.providers ?? {})) {
      gateOf(this.#providers, provider).blockedUntil = until;
    }
  }

  /** Batches that have not been started yet. */
  get fresh(): number {
    return this.#fresh.length;
  }

  /** Batches that are to be started again. */
  get waiting(): number {
    return this.#waiting.length;
  }

  add(batches: Batch[]): void {
    for (const batch of batches) {
      const dueAt = this.#carriedOver[batch.seq];
      if (dueAt === undefined) this.#fresh.push({ batch, dueAt: 0 });
      else this.#waiting.push({ batch, dueAt });
    }
  }

  /** A batch that may be started now, of those that waited before the others. From here on it is open, until it reports. */
  take(now: number): Batch | undefined {
    for (const entries of [this.#waiting, this.#fresh]) {
      const at = entries.findIndex((entry) => this.#startableAt(entry) <= now);
      if (at < 0) continue;
      const [entry] = entries.splice(at, 1) as [Entry];
      const { batch, host } = entry;
      this.#open.set(batch.seq, entry);
      gateOf(this.#providers, batch.provider).open += 1;
      if (host) host.open += 1;
      return batch;
    }
    return undefined;
  }

  /** When the next batch may be started. Infinity: not before an open one has reported; undefined: none is left. */
  get nextDueAt(): number | undefined {
    let next: number | undefined;
    for (const entries of [this.#waiting, this.#fresh]) {
      for (const entry of entries) next = Math.min(next ?? Number.POSITIVE_INFINITY, this.#startableAt(entry));
    }
    return next;
  }

  /** How an open batch ended. One that was stopped is not started again: what stopped it stops the send. */
  report(batch: Batch, { status, waitMs, host }: DeliverBatchResult, now: number): void {
    const tried = this.#close(batch).host;
    if (status === 'stopped') return;
    const provider = gateOf(this.#providers, batch.provider);
    const dueAt = now + waitMs;
    if (tried) tried.blockedUntil = undefined;
    switch (status) {
      case 'finished':
        provider.blockedUntil = undefined;
        break;
      case 'deferred':
        provider.blockedUntil = undefined;
        this.#waiting.push({ batch, dueAt });
        break;
      case 'waiting': {
        const gate = host === undefined ? provider : gateOf(this.#hosts, host);
        gate.blockedUntil = dueAt;
        this.#waiting.push({ batch, dueAt, ...(gate !== provider && { host: gate }) });
        break;
      }
      default:
        exhausted(status);
    }
  }

  /** An open batch ended without a report, which says nothing about its provider. */
  retryAt(batch: Batch, dueAt: number): void {
    this.#close(batch);
    this.#waiting.push({ batch, dueAt });
  }

  /** For the queue of a run that continues as new, once no batch is open. */
  waits(now: number): Waits {
    const batches = { ...this.#carriedOver };
    for (const { batch, dueAt } of this.#waiting) batches[batch.seq] = dueAt;
    for (const [seq, dueAt] of Object.entries(batches)) if (dueAt <= now) delete batches[Number(seq)];
    const providers: Waits['providers'] = {};
    for (const [name, { blockedUntil }] of this.#providers) {
      if (blockedUntil !== undefined) providers[name] = blockedUntil;
    }
    return { batches, providers };
  }

  #startableAt({ batch, dueAt, host }: Entry): number {
    const provider = gateOf(this.#providers, batch.provider);
    if (host === undefined) return Math.max(dueAt, provider.freeAt);
    return Math.max(host.freeAt, provider.freeAt);
  }

  #close(batch: Batch): Entry {
    const entry = this.#open.get(batch.seq)!;
    this.#open.delete(batch.seq);
    gateOf(this.#providers, batch.provider).open -= 1;
    if (entry.host) entry.host.open -= 1;
    return entry;
  }
}

function gateOf(gates: Map<string, Gate>, name: string): Gate {
  let gate = gates.get(name);
  if (gate === undefined) {
    gate = new Gate();
    gates.set(name, gate);
  }
  return gate;
}
