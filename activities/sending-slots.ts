import type { ActivitySlotInfo, CustomSlotSupplier, SlotPermit, WorkerOptions } from '@temporalio/worker';

/**
 * The slots of one delivery queue in one process. A batch that only waits (for its rate limit, for a first answer) gives its slot
 * back and keeps its place: it costs no CPU, and the batches behind it have something to send. It goes on without asking, so that
 * the limit's pace is kept, and counts again; Temporal is asked for more batches only while fewer than `size` have a slot.
 *
 * Why not on a durable timer: at one device a second that would be an activity for each device.
 */
export class SendingSlots implements CustomSlotSupplier<ActivitySlotInfo> {
  readonly type = 'custom';
  readonly #size: number;
  readonly #maxParked: number;
  /** Reserved by a poll or used by a batch; not those of parked ones. */
  #taken = 0;
  readonly #parked = new Set<string>();
  #waiting: (() => void)[] = [];

  /** @param maxParked batches that may wait without a slot: each keeps its list of devices in memory */
  constructor(size: number, maxParked = 100) {
    this.#size = size;
    this.#maxParked = maxParked;
  }

  /**
   * Gives the caller's slot back until the function that it returns is called. Undefined: the caller keeps it, for too many are
   * parked, or another of the same key is: one batch of a send is enough to use up a limit that makes it wait.
   */
  park(key: string): (() => void) | undefined {
    if (this.#parked.size >= this.#maxParked || this.#parked.has(key)) return undefined;
    this.#parked.add(key);
    this.releaseSlot();
    return () => {
      if (this.#parked.delete(key)) this.#taken += 1;
    };
  }

  // CustomSlotSupplier

  reserveSlot(_context: unknown, signal: AbortSignal): Promise<SlotPermit> {
    return new Promise((resolve, reject) => {
      const permit = this.tryReserveSlot();
      if (permit !== null) return resolve(permit);
      const grant = () => {
        signal.removeEventListener('abort', onAbort);
        this.#taken += 1;
        resolve({});
      };
      const onAbort = () => {
        this.#waiting = this.#waiting.filter((other) => other !== grant);
        reject(signal.reason);
      };
      this.#waiting.push(grant);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  tryReserveSlot(): SlotPermit | null {
    if (this.#taken >= this.#size) return null;
    this.#taken += 1;
    return {};
  }

  markSlotUsed(): void {}

  releaseSlot(): void {
    this.#taken -= 1;
    while (this.#taken < this.#size && this.#waiting.length > 0) this.#waiting.shift()!();
  }
}

/** The part of a delivery worker's options that hands out `slots`. */
export function tunedBy(slots: SendingSlots): Pick<WorkerOptions, 'tuner'> {
  const none = { type: 'fixed-size', numSlots: 2 } as const;
  return {
    tuner: {
      activityTaskSlotSupplier: slots,
      workflowTaskSlotSupplier: none,
      localActivityTaskSlotSupplier: none,
      nexusTaskSlotSupplier: none,
    },
  };
}
