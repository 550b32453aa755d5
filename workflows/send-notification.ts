import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  allHandlersFinished,
  CancellationScope,
  condition,
  continueAsNew,
  executeChild,
  isCancellation,
  log,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  sleep,
  WorkflowIdReusePolicy,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities, BatchPage, NotificationView } from '../activities/activities.ts';
import { batchWorkflowId } from '../domain/ids.ts';
import { deliveryTaskQueue, taskQueuePrefix } from '../domain/task-queues.ts';
import { batchSummary, deliverBatchWorkflow } from './deliver-batch.ts';
import { count, describeBooks, shorten } from './details.ts';
import { wakeSignal } from './messages.ts';

export interface SendNotificationInput {
  notificationId: string;
}

/** What became of it, as Temporal's UI shows it; undefined: the notification was deleted. */
export type SendNotificationResult = Pick<NotificationView, 'state' | 'title' | 'books'> | undefined;

const options = {
  startToCloseTimeout: '10m',
  heartbeatTimeout: '30s',
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '10s' },
} as const;
const summarised = (summary: string) => proxyActivities<Activities>({ ...options, summary });
const { readNotification } = summarised('read state and books');
const { beginScheduled } = summarised('the time has come: begin');
const { nextBatches } = summarised('plan and list the next batches');
const { closeBooks } = summarised('count the rows, close the books');
const { settleCancelled } = summarised('record who was not sent to, close the books');
const { cancelByOperator } = summarised('cancelled in Temporal: store it');

/** How long to wait before a batch that could not be started, or that ended without a report, is looked at again. */
const batchRetryDelay = '5s';
/** While batches run, the details in Temporal's UI are renewed after this, then after twice as long, and so on. */
const firstLookMs = 10_000;
const longestLookMs = 300_000;
/** Nothing depends on it: a timer says in Temporal's timeline what a send waits for, a signal ends the wait. */
const idleLook = '30d';

/**
 * One notification from launch to closed books. PostgreSQL says what state it is in; this workflow reads that, does what the
 * state asks for, and reads again. A signal wakes it to look; a lost signal costs time, never a device.
 */
export async function sendNotificationWorkflow(input: SendNotificationInput): Promise<SendNotificationResult> {
  const { notificationId } = input;
  let woken = false;
  setHandler(wakeSignal, () => {
    woken = true;
  });
  try {
    for (;;) {
      woken = false;
      const view = await readNotification(notificationId);
      if (view) setCurrentDetails(describe(view));
      if (view === undefined || view.isFinished || view.state === 'draft') {
        // A signal that came during the read is seen here: the server refuses to close a workflow behind its back.
        if (woken) continue;
        return view && { state: view.state, title: view.title, books: view.books };
      }
      switch (view.state) {
        case 'scheduled':
          if (view.msUntilScheduled > 0) {
            await condition(() => woken, view.msUntilScheduled, { summary: `begins at ${view.scheduledAt}` });
          } else await beginScheduled(notificationId);
          break;
        case 'sending':
          await new SendPass(
            notificationId,
            view,
            () => woken,
            () => {
              woken = false;
            },
          ).run();
          break;
        case 'paused':
        case 'halted':
          await condition(() => woken, idleLook, { summary: shorten(whatItWaitsFor(view)) });
          break;
        default:
          await settleCancelled(notificationId);
      }
      if (workflowInfo().continueAsNewSuggested) {
        await condition(allHandlersFinished);
        await continueAsNew<typeof sendNotificationWorkflow>(input);
      }
    }
  } catch (error) {
    if (!isCancellation(error)) throw error;
    // Cancelled in Temporal's own UI: the same as a cancel by the API.
    await CancellationScope.nonCancellable(async () => {
      await cancelByOperator(notificationId);
      await settleCancelled(notificationId);
    });
    throw error;
  }
}

function describe(view: NotificationView, books = view.books): string {
  const notes = [];
  if (view.state === 'scheduled') notes.push(`Begins at ${view.scheduledAt}.`);
  if (view.state === 'paused' || view.state === 'halted') notes.push(`${whatItWaitsFor(view)}.`);
  if (view.ratePerSecond !== null) notes.push(`Its own limit: ${count(view.ratePerSecond)} devices a second.`);
  return describeBooks(books, `${view.title ?? 'Notification'}: ${view.state}`, notes);
}

function whatItWaitsFor(view: NotificationView): string {
  if (view.state === 'paused') return 'Paused: waits for resume or cancel';
  return `Halted, waits for resume after the fix, or for cancel. ${(view.haltDetail ?? '').replace(/\.$/, '')}`;
}

/**
 * One go through the batches that are not finished: a window of child workflows open at once, planned a page ahead. Ends when
 * there is nothing left (and closes the books), when the notification's state forbids sending, or when the history is long
 * enough to continue as new; children are drained first in every case.
 */
class SendPass {
  readonly #notificationId: string;
  #view: NotificationView;
  readonly #isWoken: () => boolean;
  readonly #clearWoken: () => void;
  readonly #queue: BatchPage['batches'] = [];
  #plannedTo = 0;
  #isExhausted = false;
  #isUrgent = false;
  #refill: Promise<void> | undefined;
  #started = 0;
  /** Set when a batch stopped because of the notification's state: no further batch is started in this pass. */
  #isStopped = false;
  #isDone = false;

  constructor(notificationId: string, view: NotificationView, isWoken: () => boolean, clearWoken: () => void) {
    this.#notificationId = notificationId;
    this.#view = view;
    this.#isWoken = isWoken;
    this.#clearWoken = clearWoken;
  }

  async run(): Promise<void> {
    const scope = new CancellationScope();
    const lanes = scope
      .run(() => Promise.all(Array.from({ length: this.#view.settings.openBatches }, () => this.#lane())))
      .finally(() => {
        this.#isDone = true;
      });
    const ends = await Promise.allSettled([lanes, this.#watchState(scope)]);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    if (this.#isStopped) return;
    if (this.#isHistoryLong()) {
      await condition(allHandlersFinished);
      await continueAsNew<(input: SendNotificationInput) => Promise<SendNotificationResult>>({
        notificationId: this.#notificationId,
      });
    }
    const { isClosed } = await closeBooks(this.#notificationId);
    // A batch ended without a report (its workflow was terminated): the next pass starts it again.
    if (!isClosed) await sleep(batchRetryDelay);
  }

  /** Takes batches one after the other. Never throws but for a cancellation of the whole workflow. */
  async #lane(): Promise<void> {
    while (!this.#isStopped && !this.#isHistoryLong()) {
      const batch = this.#queue.shift();
      if (batch === undefined) {
        if (this.#isExhausted) return;
        await this.#refillQueue();
        continue;
      }
      this.#started += 1;
      // Planning runs ahead of sending. A failure here is met again, and handled, by whoever finds the queue empty.
      if (!this.#isExhausted && this.#queue.length < this.#view.settings.openBatches)
        this.#refillQueue().catch(() => {});
      await this.#deliver(batch);
    }
  }

  async #deliver(batch: BatchPage['batches'][number]): Promise<void> {
    const prefix = taskQueuePrefix(workflowInfo().taskQueue);
    try {
      const result = await executeChild(deliverBatchWorkflow, {
        workflowId: batchWorkflowId(this.#notificationId, batch.seq),
        // A finished batch answers at once, so starting one again is harmless.
        workflowIdReusePolicy: WorkflowIdReusePolicy.ALLOW_DUPLICATE,
        staticSummary: batchSummary({ notificationId: this.#notificationId, ...batch }),
        args: [
          {
            notificationId: this.#notificationId,
            ...batch,
            taskQueue: deliveryTaskQueue(prefix, batch.provider, this.#isUrgent),
            heartbeatTimeoutMs: this.#view.settings.heartbeatTimeoutMs,
          },
        ],
      });
      if (result === undefined || result.status === 'stopped') this.#isStopped = true;
      if (result) setCurrentDetails(describe(this.#view, result.books));
    } catch (error) {
      if (isCancellation(error)) {
        this.#isStopped = true;
        return;
      }
      // An orphan of a terminated parent still runs, or somebody terminated the child: the batch's row decides, later.
      if (!(error instanceof WorkflowExecutionAlreadyStartedError))
        log.warn('batch ended without a report', { seq: batch.seq });
      try {
        await sleep(batchRetryDelay);
      } catch {
        // Only a cancellation ends a sleep early, and the flag below is its answer.
        this.#isStopped = true;
      }
    }
  }

  /** One page at a time, shared by all lanes. */
  #refillQueue(): Promise<void> {
    this.#refill ??= this.#fetchPage().finally(() => {
      this.#refill = undefined;
    });
    return this.#refill;
  }

  async #fetchPage(): Promise<void> {
    try {
      const page = await nextBatches({
        notificationId: this.#notificationId,
        afterSeq: this.#plannedTo,
        limit: this.#view.settings.openBatches * 2,
      });
      this.#queue.push(...page.batches);
      this.#plannedTo = page.batches.at(-1)?.seq ?? this.#plannedTo;
      this.#isExhausted = page.isLast;
      this.#isUrgent = page.isUrgent;
    } catch (error) {
      if (!isCancellation(error)) throw error;
      this.#isStopped = true;
    }
  }

  /**
   * Woken in mid-pass, or from time to time by itself: shows the books as they are. When the state forbids sending by now,
   * children that sleep must not hold the pass.
   */
  async #watchState(scope: CancellationScope): Promise<void> {
    for (let lookMs = firstLookMs; ; lookMs = Math.min(lookMs * 2, longestLookMs)) {
      await condition(() => this.#isWoken() || this.#isDone, lookMs, { summary: 'then a look at the books' });
      if (this.#isDone) return;
      this.#clearWoken();
      const view = await readNotification(this.#notificationId);
      if (view) {
        this.#view = view;
        setCurrentDetails(describe(view));
      }
      if (view?.state === 'sending') continue;
      this.#isStopped = true;
      scope.cancel();
      return;
    }
  }

  #isHistoryLong(): boolean {
    const { batchesPerRun } = this.#view.settings;
    return workflowInfo().continueAsNewSuggested || (batchesPerRun > 0 && this.#started >= batchesPerRun);
  }
}
