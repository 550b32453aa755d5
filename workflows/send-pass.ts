import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  CancellationScope,
  condition,
  executeChild,
  isCancellation,
  log,
  setCurrentDetails,
  sleep,
  WorkflowIdReusePolicy,
  workflowInfo,
} from '@temporalio/workflow';
import type { BatchPage, FirstLook, WorkflowView } from '../activities/activities.ts';
import { batchWorkflowId } from '../domain/ids.ts';
import { deliveryTaskQueue, taskQueuePrefix } from '../domain/task-queues.ts';
import { type Batch, BatchQueue, type Waits } from './batch-queue.ts';
import { type DeliverBatchWorkflowResult, deliverBatchWorkflow } from './deliver-batch.ts';
import { count, describeBatch, describeNotification, shorten } from './details.ts';
import { closeBooks, nextBatches, readNotification } from './notification-activities.ts';
import { showInList } from './search-attributes.ts';

/** Set by the signal, cleared before each read of the state. */
export interface Wake {
  isPending: boolean;
}

/** How long to wait before a batch that could not be started, or that ended without a report, is looked at again. */
const batchRetryDelayMs = 5_000;
/** While batches run, the details in Temporal's UI are renewed after this, then after twice as long, and so on. */
const firstLookMs = 10_000;
const longestLookMs = 300_000;

/**
 * One go through the batches that are not finished: as many places as batches may be open at once, each with one child workflow
 * after the other, and pages planned ahead. `BatchQueue` says which batch is next; this carries it out. Ends when there is
 * nothing left (and closes the books), when the notification's state forbids sending, or when the history is long enough to
 * continue as new; children are drained first in every case.
 */
export class SendPass {
  readonly #notificationId: string;
  readonly #wake: Wake;
  readonly #queue: BatchQueue;
  /** The places and their children. */
  readonly #scope = new CancellationScope();
  #view: WorkflowView;
  /** Until it is in the queue. */
  #firstPage: BatchPage | undefined;
  /** Seq of the last batch in the queue; … */
  #listedTo = 0;
  /** … it is the last of the send. */
  #isListed = false;
  #isUrgent = false;
  /** In Temporal's list. */
  #isWholeAudienceShown = false;
  #started = 0;
  /** Set when a batch stopped because of the notification's state: no further batch is started in this pass. */
  #isStopped = false;
  #isDone = false;

  constructor(notificationId: string, view: FirstLook, waits: Waits | undefined, wake: Wake) {
    this.#notificationId = notificationId;
    this.#view = view;
    this.#firstPage = view.firstPage;
    this.#queue = new BatchQueue(waits);
    this.#wake = wake;
  }

  /** @returns what the next run must know, when this one is to continue as new */
  async run(): Promise<Waits | undefined> {
    const { openBatches } = this.#view.settings;
    const places = this.#scope
      .run(() => Promise.all(Array.from({ length: openBatches }, () => this.#fillPlace())))
      .finally(() => {
        this.#isDone = true;
      });
    const ends = await Promise.allSettled([places, this.#watchState()]);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    if (this.#isStopped) return undefined;
    if (this.#isHistoryLong()) return this.#queue.waits(Date.now());
    const { isClosed } = await closeBooks(this.#notificationId);
    if (!isClosed) await sleep(batchRetryDelayMs);
    return undefined;
  }

  /** Takes batches one after the other. Never throws but for a cancellation of the whole workflow. */
  async #fillPlace(): Promise<void> {
    while (!this.#isStopped && !this.#isHistoryLong()) {
      const batch = this.#queue.take(Date.now());
      if (batch === undefined) {
        if (!this.#isListed) await this.#listMore();
        else if (this.#queue.nextDueAt === undefined) return;
        else await this.#waitUntilDue();
        continue;
      }
      this.#started += 1;
      // Planning runs ahead of sending. A failure here is met again, and handled, by the place that finds the queue empty.
      if (!this.#isListed && this.#queue.fresh < this.#view.settings.openBatches) this.#listMore().catch(() => {});
      await this.#deliver(batch);
    }
  }

  async #deliver(batch: Batch): Promise<void> {
    const notificationId = this.#notificationId;
    const prefix = taskQueuePrefix(workflowInfo().taskQueue);
    let result: DeliverBatchWorkflowResult;
    try {
      result = await executeChild(deliverBatchWorkflow, {
        workflowId: batchWorkflowId(notificationId, batch.seq),
        // A finished batch answers at once, so starting one again is harmless.
        workflowIdReusePolicy: WorkflowIdReusePolicy.ALLOW_DUPLICATE,
        staticSummary: describeBatch(batch),
        args: [
          {
            notificationId,
            ...batch,
            taskQueue: deliveryTaskQueue(prefix, batch.provider, this.#isUrgent),
            heartbeatTimeoutMs: this.#view.settings.heartbeatTimeoutMs,
          },
        ],
      });
    } catch (error) {
      if (!isCancellation(error)) {
        // An orphan of a terminated parent still runs, or an operator terminated the child: the batch's row decides, later.
        if (!(error instanceof WorkflowExecutionAlreadyStartedError))
          log.warn('batch ended without a report', { seq: batch.seq });
        this.#queue.retryAt(batch, Date.now() + batchRetryDelayMs);
        return;
      }
    }
    if (result === undefined || result.status === 'stopped') this.#isStopped = true;
    if (result === undefined) return;
    this.#queue.report(batch, result, Date.now());
    this.#view.unreachable = result.unreachable ?? [];
    setCurrentDetails(this.#describe(result.books));
    // Otherwise looks renew what the list shows: an event for each batch would be too many.
    if (result.books.isPlanned && !this.#isWholeAudienceShown) this.#showInList(result.books);
  }

  /** One timer; ends early when another batch is due before. */
  readonly #waitUntilDue = shared(async () => {
    const dueAt = this.#queue.nextDueAt!;
    setCurrentDetails(this.#describe());
    const isOver = () => this.#isStopped || this.#isHistoryLong() || (this.#queue.nextDueAt ?? 0) < dueAt;
    try {
      if (dueAt === Number.POSITIVE_INFINITY) await condition(isOver);
      else await condition(isOver, Math.max(1, dueAt - Date.now()), { summary: shorten(this.#whoWaits() ?? '') });
    } catch {
      // Only a cancellation ends it so, and the flag is its answer.
      this.#isStopped = true;
    }
  });

  #whoWaits(): string | undefined {
    const { waiting, nextDueAt } = this.#queue;
    if (waiting === 0 || nextDueAt === undefined || nextDueAt === Number.POSITIVE_INFINITY) return undefined;
    return `${count(waiting)} ${waiting === 1 ? 'batch waits' : 'batches wait'} to be tried again, the next until ${new Date(nextDueAt).toISOString()}`;
  }

  #showInList(books = this.#view.books): void {
    showInList(this.#view, books);
    this.#isWholeAudienceShown = books.isPlanned;
  }

  #describe(books = this.#view.books): string {
    const waits = this.#whoWaits();
    return describeNotification(this.#view, books, waits === undefined ? [] : [`${waits}.`]);
  }

  /** One page of batches. */
  readonly #listMore = shared(async () => {
    try {
      const page =
        this.#firstPage ?? (await nextBatches({ notificationId: this.#notificationId, afterSeq: this.#listedTo }));
      this.#firstPage = undefined;
      this.#queue.add(page.batches);
      this.#listedTo = page.batches.at(-1)?.seq ?? this.#listedTo;
      this.#isListed = page.isLast;
      this.#isUrgent = page.isUrgent;
    } catch (error) {
      if (!isCancellation(error)) throw error;
      this.#isStopped = true;
    }
  });

  /**
   * Woken in mid-pass, or from time to time by itself: shows the books as they are. When the state forbids sending by now,
   * children that sleep must not hold the pass.
   */
  async #watchState(): Promise<void> {
    for (let lookMs = firstLookMs; ; lookMs = Math.min(lookMs * 2, longestLookMs)) {
      await condition(() => this.#wake.isPending || this.#isDone || this.#isStopped, lookMs, {
        summary: 'then a look at the books',
      });
      if (this.#isDone) return;
      if (this.#isStopped) {
        // Whatever the state is by now: the other batches must not keep the one that stopped from being started again.
        this.#scope.cancel();
        return;
      }
      this.#wake.isPending = false;
      const view = await readNotification(this.#notificationId);
      if (view) {
        this.#view = view;
        setCurrentDetails(this.#describe());
        this.#showInList();
      }
      if (view?.state === 'sending') continue;
      this.#isStopped = true;
      this.#scope.cancel();
      return;
    }
  }

  #isHistoryLong(): boolean {
    const { batchesPerRun } = this.#view.settings;
    return workflowInfo().continueAsNewSuggested || (batchesPerRun > 0 && this.#started >= batchesPerRun);
  }
}

/** Places that call it while it runs wait for the same run. */
function shared(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= run().finally(() => {
      running = undefined;
    });
    return running;
  };
}
