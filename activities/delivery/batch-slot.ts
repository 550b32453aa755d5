import type { Claim } from '../../db/batches.ts';
import { pause } from '../../domain/pause.ts';
import type { SendingSlots } from '../sending-slots.ts';
import { unprovenInFlight } from './run-hosts.ts';
import type { Slot } from './slot.ts';

/** A rate limit or a refused device that is free this soon is waited for here, what takes longer on a durable timer, … */
export const maxWaitHereMs = 2_000;
/** … and one of many short waits that have to be sat out in a slot, … */
const maxWaitInSlotMs = 500;
/** … or that have gone on for so long, well before Temporal's time for one activity is over. */
const maxWaitedHereMs = 3_600_000;

/** No answer between two looks so far apart: a run with no more than a handful under way leaves its slot until the next answer. */
export const silenceMs = 500;

/** The slot of one run over a batch, which is left while the run only waits. */
export class BatchSlot implements Slot {
  readonly #slots: SendingSlots;
  readonly #claim: Claim;
  readonly #stop: AbortSignal;
  #waitedMs = 0;
  /** Takes the slot back that the run has left. */
  #takeSlot: (() => void) | undefined;
  #isWaiting = false;
  #answeredAtLook = -1;

  constructor({ slots, claim, stop }: { slots: SendingSlots; claim: Claim; stop: AbortSignal }) {
    this.#slots = slots;
    this.#claim = claim;
    this.#stop = stop;
  }

  /**
   * Whether the rate limit is waited for here: without a slot, which is left at once, where there is a place for that; in it only
   * for as long as an activity more would cost others.
   */
  mayWaitForQuota(waitMs: number): boolean {
    return this.#mayWait(waitMs, this.#claim.notificationId);
  }

  mayWaitForDeferred(waitMs: number): boolean {
    return this.#mayWait(waitMs, this.#ownKey);
  }

  #mayWait(waitMs: number, key: string): boolean {
    this.#waitedMs += waitMs;
    if (waitMs > maxWaitHereMs || this.#waitedMs > maxWaitedHereMs) return false;
    this.#takeSlot ??= this.#slots.park(key);
    return this.#takeSlot !== undefined || this.#waitedMs <= maxWaitInSlotMs;
  }

  get #ownKey(): string {
    return `${this.#claim.notificationId} ${this.#claim.seq}`;
  }

  async waitHere(waitMs: number): Promise<void> {
    this.#isWaiting = true;
    await pause(waitMs, this.#stop);
    this.#isWaiting = false;
    this.takeBack();
  }

  leaveInSilence(answered: number, inFlight: number): void {
    const isSilent = answered === this.#answeredAtLook && inFlight > 0;
    this.#answeredAtLook = answered;
    if (!isSilent || inFlight > 2 * unprovenInFlight) return;
    this.#takeSlot ??= this.#slots.park(this.#ownKey);
  }

  noteAnswer(): void {
    if (!this.#isWaiting) this.takeBack();
  }

  takeBack(): void {
    this.#takeSlot?.();
    this.#takeSlot = undefined;
  }
}
