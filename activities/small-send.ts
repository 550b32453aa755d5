import { isAnyBatchClaimed } from '../db/batches.ts';
import type { DeliverBatchInput } from '../domain/delivery.ts';
import type { ProviderName } from '../domain/device.ts';
import type { ActivityDeps } from './activities.ts';
import { closeBooks } from './close-books.ts';
import { carryOutDelivery } from './deliver-batch.ts';
import { type FirstLook, firstLook } from './first-look.ts';
import { SendingSlots } from './sending-slots.ts';

/** What has not ended by then goes on in workflows of its batches. */
const sendMs = 3_000;
/** A provider that was too slow is left to those for so long: every step that waits for it holds up other sends. */
const slowMs = 30_000;

/**
 * Looks at notifications, and sends those to few devices in the same step: one workflow task then plans, sends and closes what otherwise
 * takes a workflow for each batch and several activities.
 */
export class SmallSends {
  /** None to leave: a step that has to wait ends soon. */
  readonly #slots = new SendingSlots(0, 0);
  readonly #slowUntil = new Map<ProviderName, number>();

  /**
   * A small send (see `BatchPage.isUrgent`) is sent to its end where that takes no longer than a few seconds; what is left of it is in
   * `firstPage`. A batch that was claimed before, by a step that died or by an earlier pass, is left as well: Temporal counts
   * the attempts of the batch's own activity, and nobody those of this step.
   */
  async look(deps: ActivityDeps, id: string, cancelled: AbortSignal): Promise<FirstLook | undefined> {
    const look = await firstLook(deps, id, cancelled);
    const page = look?.firstPage;
    if (!page?.isUrgent || !page.isLast || !page.batches.every(({ provider }) => this.#takes(deps, provider)))
      return look;
    if (await isAnyBatchClaimed(deps.db, id)) return look;
    const ends = await Promise.allSettled(
      page.batches.map((batch) => this.#send(deps, { notificationId: id, ...batch }, cancelled)),
    );
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    await closeBooks(deps, id);
    return firstLook(deps, id, cancelled);
  }

  async #send(deps: ActivityDeps, batch: DeliverBatchInput, cancelled: AbortSignal): Promise<void> {
    const progress = { dispatched: 0, answered: 0 };
    const late = AbortSignal.timeout(sendMs);
    const onLate = () => {
      if (progress.answered < progress.dispatched) this.#slowUntil.set(batch.provider, performance.now() + slowMs);
    };
    late.addEventListener('abort', onLate);
    try {
      await carryOutDelivery({ ...deps, slots: this.#slots }, batch, {
        activityAttempt: 1,
        progress,
        stop: AbortSignal.any([cancelled, late]),
      });
    } finally {
      late.removeEventListener('abort', onLate);
    }
  }

  /** A worker with other roles sends to this provider, or better does. */
  #takes({ config }: ActivityDeps, provider: ProviderName): boolean {
    return config.roles.includes(provider) && performance.now() >= (this.#slowUntil.get(provider) ?? 0);
  }
}
