import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import type { ProviderName } from '../domain/device.ts';
import { exhausted } from '../domain/exhausted.ts';

export type Batch = Omit<DeliverBatchInput, 'notificationId'>;
export type BatchReport = Pick<DeliverBatchResult, 'status' | 'waitMs' | 'host'>;

/**
 * What a run that continues as new knows: milliseconds since 1970 before which it is no use to start a batch. Providers and hosts
 * are blocked also when their time is over: one batch at a time tries.
 */
export interface Waits {
  /** By seq. */
  batches: Record<number, number>;
  providers: Partial<Record<ProviderName, number>>;
  /** By provider and host, with the seqs of the batches that wait for it. Absent: none. */
  hosts?: Record<string, { until: number; batches: number[] }>;
}

interface Wait {
  /** 0: has not been started yet, or waits for the host only. */
  dueAt: number;
  /** All devices left in the batch are sent to by this one: the batch goes on when another one finds the host free. */
  host?: string;
}

interface Entry extends Wait {
  batch: Batch;
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
 * A batch is started again until it reports that it is finished. One that was refused for now waits for its own time. A blocked
 * provider keeps its own batches waiting, not those of another; a blocked host, the batches that have devices for no other host.
 */
export class BatchQueue {
  readonly #fresh: Entry[] = [];
  readonly #waiting: Entry[] = [];
  /** By seq. */
  readonly #open = new Map<number, Entry>();
  readonly #providers = new Map<ProviderName, Gate>();
  readonly #hosts = new Map<string, Gate>();
  /** Of the run before, by seq of batches that have not been added yet. */
  readonly #carriedOver = new Map<number, Wait>();

  constructor(waits?: Waits) {
    const { batches = {}, providers = {}, hosts = {} } = waits ?? {};
    for (const [seq, dueAt] of Object.entries(batches)) this.#carriedOver.set(Number(seq), { dueAt });
    for (const [provider, until] of Object.entries(providers)) gateOf(this.#providers, provider).blockedUntil = until;
    for (const [host, { until, batches }] of Object.entries(hosts)) {
      gateOf(this.#hosts, host).blockedUntil = until;
      for (const seq of batches) this.#carriedOver.set(seq, { dueAt: 0, host });
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
      const wait = this.#carriedOver.get(batch.seq);
      this.#carriedOver.delete(batch.seq);
      if (wait === undefined) this.#fresh.push({ batch, dueAt: 0 });
      else this.#waiting.push({ batch, ...wait });
    }
  }

  /** A batch that may be started now, of those that waited before the others. From here on it is open, until it reports. */
  take(now: number): Batch | undefined {
    for (const entries of [this.#waiting, this.#fresh]) {
      const at = entries.findIndex((entry) => this.#startableAt(entry) <= now);
      if (at < 0) continue;
      const [entry] = entries.splice(at, 1) as [Entry];
      this.#open.set(entry.batch.seq, entry);
      for (const gate of this.#gatesOf(entry)) gate.open += 1;
      return entry.batch;
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
  report(batch: Batch, { status, waitMs, host }: BatchReport, now: number): void {
    const [provider, tried] = this.#close(batch);
    if (status === 'stopped') return;
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
      case 'waiting':
        if (host === undefined) {
          provider.blockedUntil = dueAt;
          this.#waiting.push({ batch, dueAt });
        } else {
          const name = `${batch.provider} ${host}`;
          gateOf(this.#hosts, name).blockedUntil = dueAt;
          this.#waiting.push({ batch, dueAt: 0, host: name });
        }
        break;
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
    const waits: Required<Waits> = { batches: {}, providers: {}, hosts: {} };
    for (const [name, { blockedUntil }] of this.#providers) {
      if (blockedUntil !== undefined) waits.providers[name] = blockedUntil;
    }
    const waiting = this.#waiting.map((entry) => [entry.batch.seq, entry] as const);
    for (const [seq, { dueAt, host }] of [...this.#carriedOver, ...waiting]) {
      if (dueAt > now) waits.batches[seq] = dueAt;
      if (host === undefined) continue;
      const until = gateOf(this.#hosts, host).blockedUntil;
      if (until === undefined) continue;
      waits.hosts[host] ??= { until, batches: [] };
      waits.hosts[host].batches.push(seq);
    }
    return waits;
  }

  #startableAt(entry: Entry): number {
    return Math.max(entry.dueAt, ...this.#gatesOf(entry).map((gate) => gate.freeAt));
  }

  /** All that must be free for it. */
  #gatesOf({ batch, host }: Entry): [provider: Gate, ...host: Gate[]] {
    const provider = gateOf(this.#providers, batch.provider);
    return host === undefined ? [provider] : [provider, gateOf(this.#hosts, host)];
  }

  #close(batch: Batch): [provider: Gate, ...host: Gate[]] {
    const gates = this.#gatesOf(this.#open.get(batch.seq)!);
    this.#open.delete(batch.seq);
    for (const gate of gates) gate.open -= 1;
    return gates;
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
