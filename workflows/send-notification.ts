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
import type { Activities, BatchPage, FirstLook, WorkflowView as NotificationView } from '../activities/activities.ts';
import type { ProviderName } from '../domain/device.ts';
import { batchWorkflowId } from '../domain/ids.ts';
import { deliveryTaskQueue, taskQueuePrefix } from '../domain/task-queues.ts';
import { batchSummary, deliverBatchWorkflow, mustWait } from './deliver-batch.ts';
import { count, describeBooks, shorten } from './details.ts';
import { wakeSignal } from './messages.ts';

export interface SendNotificationInput {
  notificationId: string;
  /** What the run before knew, where one continued as new. */
  waits?: Waits;
}

/** Milliseconds since 1970 before which it is no use to start a batch. */
interface Waits {
  /** By seq. */
  batches: Record<number, number>;
  providers: Partial<Record<ProviderName, number>>;
}

/** What became of it, as Temporal's UI shows it; undefined: the notification was deleted. */
export type SendNotificationResult = Pick<NotificationView, 'state' | 'title' | 'books'> | undefined;

const options = {
  startToCloseTimeout: '10m',
  heartbeatTimeout: '30s',
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '10s' },
} as const;
const summarised = (summary: string) => proxyActivities<Activities>({ ...options, summary });
const { firstLook } = summarised('read state and books, list the first batches');
const { readNotification } = summarised('read state and books');
const { beginScheduled } = summarised('the time has come: begin');
const { nextBatches } = summarised('plan and list the next batches');
const { closeBooks } = summarised('count the rows, close the books');
const { settleCancelled } = summarised('record who was not sent to, close the books');
const { cancelByOperator } = summarised('cancelled in Temporal: store it');

/** How long to wait before a batch that could not be started, or that ended without a report, is looked at again. */
const batchRetryDelayMs = 5_000;
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
  let waits = input.waits;
  let woken = false;
  setHandler(wakeSignal, () => {
    woken = true;
  });
  try {
    for (let isFirst = true; ; isFirst = false) {
      woken = false;
      const view: FirstLook | undefined = await (isFirst ? firstLook : readNotification)(notificationId);
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
            waits,
            () => woken,
            () => {
              woken = false;
            },
          ).run();
          waits = undefined;
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
        await continueAsNew<typeof sendNotificationWorkflow>({ notificationId });
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

function describe(view: NotificationView, books = view.books, more: string[] = []): string {
  const notes = [...more];
  if (view.state === 'scheduled') notes.push(`Begins at ${view.scheduledAt}.`);
  if (view.state === 'paused' || view.state === 'halted') notes.push(`${whatItWaitsFor(view)}.`);
  for (const { provider, host, since, error } of view.unreachable ?? []) {
    notes.push(`${provider} cannot be reached at ${host} since ${since}: ${error}`);
  }
  if (view.ratePerSecond !== null) notes.push(`Its own limit: ${count(view.ratePerSecond)} devices a second.`);
  return describeBooks(books, `${view.title ?? 'Notification'}: ${view.state}`, notes);
}

function whatItWaitsFor(view: NotificationView): string {
  if (view.state === 'paused') return 'Paused: waits for resume or cancel';
  return `Halted, waits for resume after the fix, or for cancel. ${(view.haltDetail ?? '').replace(/\.$/, '')}`;
}

type Batch = BatchPage['batches'][number];

interface WaitingBatch {
  batch: Batch;
  dueAt: number;
  /** Everybody left in it is sent to by this one: it goes on when another batch finds the host free. */
  host?: string | undefined;
}

/**
 * One go through the batches that are not finished: a window of child workflows open at once, planned a page ahead. A batch
 * that must wait gives its place to the next one and is started again when its time has come; a provider that nobody can be
 * sent to keeps its own batches waiting, not the other's. Ends when there is nothing left (and closes the books), when the
 * notification's state forbids sending, or when the history is long enough to continue as new; children are drained first in
 * every case.
 */
class SendPass {
  readonly #notificationId: string;
  #view: NotificationView;
  readonly #isWoken: () => boolean;
  readonly #clearWoken: () => void;
  readonly #queue: Batch[] = [];
  /** Batches to be started again, and when. */
  readonly #waiting: WaitingBatch[] = [];
  /** Until a batch of the provider reports something else, one at a time tries whether sending is possible again. */
  readonly #blockedUntil: Waits['providers'];
  /** Of hosts that alone hold up a batch: until a batch of them reports something else, one at a time tries. */
  readonly #hostBlockedUntil = new Map<string, number>();
  readonly #triedHosts = new Set<string>();
  readonly #open: Record<ProviderName, number> = { apns: 0, fcm: 0 };
  /** Of the run before. */
  readonly #dueAt: Waits['batches'];
  #firstPage: BatchPage | undefined;
  #plannedTo = 0;
  #isExhausted = false;
  #isUrgent = false;
  #refill: Promise<void> | undefined;
  #wait: Promise<void> | undefined;
  #started = 0;
  /** Set when a batch stopped because of the notification's state: no further batch is started in this pass. */
  #isStopped = false;
  #isDone = false;

  constructor(
    notificationId: string,
    view: FirstLook,
    waits: Waits | undefined,
    isWoken: () => boolean,
    clearWoken: () => void,
  ) {
    this.#notificationId = notificationId;
    this.#view = view;
    this.#firstPage = view.firstPage;
    this.#dueAt = waits?.batches ?? {};
    this.#blockedUntil = { ...waits?.providers };
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
        waits: this.#waits(),
      });
    }
    const { isClosed } = await closeBooks(this.#notificationId);
    if (!isClosed) await sleep(batchRetryDelayMs);
  }

  #waits(): Waits {
    const batches = { ...this.#dueAt };
    for (const { batch, dueAt } of this.#waiting) batches[batch.seq] = dueAt;
    for (const [seq, dueAt] of Object.entries(batches)) if (dueAt <= Date.now()) delete batches[Number(seq)];
    return { batches, providers: this.#blockedUntil };
  }

  /** Takes batches one after the other. Never throws but for a cancellation of the whole workflow. */
  async #lane(): Promise<void> {
    while (!this.#isStopped && !this.#isHistoryLong()) {
      const next = this.#take();
      if (next === undefined) {
        if (!this.#isExhausted) await this.#refillQueue();
        else if (this.#nextDueAt() === undefined) return;
        else await this.#waitUntilDue();
        continue;
      }
      this.#started += 1;
      // Planning runs ahead of sending. A failure here is met again, and handled, by whoever finds the queue empty.
      if (!this.#isExhausted && this.#queue.length < this.#view.settings.openBatches)
        this.#refillQueue().catch(() => {});
      await this.#deliver(next);
    }
  }

  async #deliver({ batch, host }: Pick<WaitingBatch, 'batch' | 'host'>): Promise<void> {
    const prefix = taskQueuePrefix(workflowInfo().taskQueue);
    this.#open[batch.provider] += 1;
    if (host !== undefined) this.#triedHosts.add(host);
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
      else {
        const dueAt = Date.now() + result.waitMs;
        if (mustWait(result)) this.#waiting.push({ batch, dueAt, host: result.host });
        if (host !== undefined && result.host !== host) this.#hostBlockedUntil.delete(host);
        if (result.host !== undefined) this.#hostBlockedUntil.set(result.host, dueAt);
        else if (result.status === 'waiting') this.#blockedUntil[batch.provider] = dueAt;
        else delete this.#blockedUntil[batch.provider];
      }
      if (result) {
        this.#view.unreachable = result.unreachable ?? [];
        setCurrentDetails(this.#describe(result.books));
      }
    } catch (error) {
      if (isCancellation(error)) {
        this.#isStopped = true;
        return;
      }
      // An orphan of a terminated parent still runs, or somebody terminated the child: the batch's row decides, later.
      if (!(error instanceof WorkflowExecutionAlreadyStartedError))
        log.warn('batch ended without a report', { seq: batch.seq });
      this.#waiting.push({ batch, dueAt: Date.now() + batchRetryDelayMs });
    } finally {
      this.#open[batch.provider] -= 1;
      if (host !== undefined) this.#triedHosts.delete(host);
    }
  }

  /** A batch that may be started now, of those that waited before the others. */
  #take(): Pick<WaitingBatch, 'batch' | 'host'> | undefined {
    const now = Date.now();
    const due = this.#waiting.findIndex((waiting) => this.#startableAt(waiting) <= now);
    if (due >= 0) return this.#waiting.splice(due, 1)[0];
    const next = this.#queue.findIndex((batch) => this.#freeAt(batch) <= now);
    return next >= 0 ? { batch: this.#queue.splice(next, 1)[0]! } : undefined;
  }

  #startableAt({ batch, dueAt, host }: WaitingBatch): number {
    if (host === undefined) return Math.max(dueAt, this.#freeAt(batch));
    if (this.#triedHosts.has(host)) return Number.POSITIVE_INFINITY;
    return Math.max(this.#hostBlockedUntil.get(host) ?? 0, this.#freeAt(batch));
  }

  /** Infinity: not before an open batch of the provider has reported. */
  #freeAt({ provider }: Batch): number {
    const blockedUntil = this.#blockedUntil[provider];
    if (blockedUntil === undefined) return 0;
    return this.#open[provider] > 0 ? Number.POSITIVE_INFINITY : blockedUntil;
  }

  /** When the next batch may be started; undefined: none is left. */
  #nextDueAt(): number | undefined {
    let next: number | undefined;
    const note = (at: number) => {
      if (next === undefined || at < next) next = at;
    };
    for (const waiting of this.#waiting) note(this.#startableAt(waiting));
    for (const batch of this.#queue) note(this.#freeAt(batch));
    return next;
  }

  /** One timer, shared by all lanes; ends early when another batch is due before. */
  #waitUntilDue(): Promise<void> {
    this.#wait ??= this.#sleepUntil(this.#nextDueAt()!).finally(() => {
      this.#wait = undefined;
    });
    return this.#wait;
  }

  async #sleepUntil(dueAt: number): Promise<void> {
    setCurrentDetails(this.#describe());
    const isOver = () => this.#isStopped || this.#isHistoryLong() || (this.#nextDueAt() ?? 0) < dueAt;
    try {
      if (dueAt === Number.POSITIVE_INFINITY) await condition(isOver);
      else await condition(isOver, Math.max(1, dueAt - Date.now()), { summary: shorten(this.#whoWaits() ?? '') });
    } catch {
      // Only a cancellation ends it so, and the flag is its answer.
      this.#isStopped = true;
    }
  }

  #whoWaits(): string | undefined {
    const batches = this.#waiting.length;
    const dueAt = this.#nextDueAt();
    if (batches === 0 || dueAt === undefined || dueAt === Number.POSITIVE_INFINITY) return undefined;
    return `${count(batches)} ${batches === 1 ? 'batch waits' : 'batches wait'} to be tried again, the next until ${new Date(dueAt).toISOString()}`;
  }

  #describe(books = this.#view.books): string {
    const waits = this.#whoWaits();
    return describe(this.#view, books, waits === undefined ? [] : [`${waits}.`]);
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
      const page =
        this.#firstPage ?? (await nextBatches({ notificationId: this.#notificationId, afterSeq: this.#plannedTo }));
      this.#firstPage = undefined;
      for (const batch of page.batches) {
        const dueAt = this.#dueAt[batch.seq];
        if (dueAt === undefined) this.#queue.push(batch);
        else this.#waiting.push({ batch, dueAt });
      }
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
      await condition(() => this.#isWoken() || this.#isDone || this.#isStopped, lookMs, {
        summary: 'then a look at the books',
      });
      if (this.#isDone) return;
      if (this.#isStopped) {
        // Whatever the state is by now: the other batches must not keep the one that stopped from being started again.
        scope.cancel();
        return;
      }
      this.#clearWoken();
      const view = await readNotification(this.#notificationId);
      if (view) {
        this.#view = view;
        setCurrentDetails(this.#describe());
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
