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
import { deliverBatchWorkflow } from './deliver-batch.ts';
import { describeBooks } from './details.ts';
import { wakeSignal } from './messages.ts';

export interface SendNotificationInput {
  notificationId: string;
}

const activities = proxyActivities<Activities>({
  startToCloseTimeout: '10m',
  heartbeatTimeout: '30s',
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '10s' },
});

/** How long to wait before a batch that could not be started, or that ended without a report, is looked at again. */
const batchRetryDelay = '5s';

/**
 * One notification from launch to closed books. PostgreSQL says what state it is in; this workflow reads that, does what the
 * state asks for, and reads again. A signal wakes it to look; a lost signal costs time, never a device.
 */
export async function sendNotificationWorkflow(input: SendNotificationInput): Promise<void> {
  const { notificationId } = input;
  let woken = false;
  setHandler(wakeSignal, () => {
    woken = true;
  });
  try {
    for (;;) {
      woken = false;
      const view = await activities.readNotification(notificationId);
      if (view === undefined || view.isFinished || view.state === 'draft') {
        // A signal that came during the read is seen here: the server refuses to close a workflow behind its back.
        if (woken) continue;
        return;
      }
      setCurrentDetails(describeBooks(view.books, headline(view)));
      switch (view.state) {
        case 'scheduled':
          if (view.msUntilScheduled > 0) await condition(() => woken, view.msUntilScheduled);
          else await activities.beginScheduled(notificationId);
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
          await condition(() => woken);
          break;
        default:
          await activities.settleCancelled(notificationId);
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
      await activities.cancelByOperator(notificationId);
      await activities.settleCancelled(notificationId);
    });
    throw error;
  }
}

function headline(view: NotificationView): string {
  const detail = view.haltDetail === null ? '' : `: ${view.haltDetail}`;
  return `${view.title ?? 'Notification'} is ${view.state}${detail}`;
}

/**
 * One go through the batches that are not finished: a window of child workflows open at once, planned a page ahead. Ends when
 * there is nothing left (and closes the books), when the notification's state forbids sending, or when the history is long
 * enough to continue as new; children are drained first in every case.
 */
class SendPass {
  readonly #notificationId: string;
  readonly #view: NotificationView;
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
      await continueAsNew<(input: SendNotificationInput) => Promise<void>>({ notificationId: this.#notificationId });
    }
    const { isClosed } = await activities.closeBooks(this.#notificationId);
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
        staticSummary: `${batch.provider} · batch ${batch.seq} · ${batch.size} devices`,
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
      if (result) setCurrentDetails(describeBooks(result.books, headline(this.#view)));
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
      const page = await activities.nextBatches({
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

  /** A wake-up in mid-pass: when the state forbids sending by now, children that sleep must not hold the pass. */
  async #watchState(scope: CancellationScope): Promise<void> {
    for (;;) {
      await condition(() => this.#isWoken() || this.#isDone);
      if (this.#isDone) return;
      this.#clearWoken();
      const view = await activities.readNotification(this.#notificationId);
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
