/** Follows a send to its end, looks at the books each time, and disturbs the send when it has come far enough. */
import { setTimeout as sleep } from 'node:timers/promises';
import { auditBooks } from '../../db/audit.ts';
import type { NotificationView } from '../../local/api-client.ts';
import { type ChaosRun, disturb } from './disturbances.ts';
import { type Disturbance, targetsOf } from './scenario.ts';

const pollMs = 50;
/**
 * A send without progress for this long, with no disturbance under way, has come to a stand; so has an API that does not answer.
 */
const stallMs = 60_000;

export class Watch {
  /** What happened, one line each. */
  readonly story: string[] = [];
  readonly problems: string[] = [];
  /** How many looks found the books in order. */
  looks = 0;
  readonly #run: ChaosRun;
  /** Disturbances not yet begun, in order. */
  readonly #waiting: Disturbance[];
  /** Disturbances under way, by what they touch. */
  readonly #busy = new Set<string>();
  #underWay = 0;
  #before: NotificationView['books'] | undefined;
  #movedAt = performance.now();

  constructor(run: ChaosRun, disturbances: readonly Disturbance[]) {
    this.#run = run;
    this.#waiting = [...disturbances];
  }

  /**
   * @returns the notification in its final state, or as it stands when there is no more progress
   * @throws when `stop` is aborted, or the API is away for longer than any disturbance takes it away
   */
  async untilTheEnd(stop?: AbortSignal): Promise<NotificationView> {
    for (let seenAt = performance.now(); ; ) {
      stop?.throwIfAborted();
      const view = await this.#run.operator.look();
      if (view === undefined) {
        if (performance.now() - seenAt > stallMs) throw new Error(`the API has not answered for ${stallMs / 1000} s`);
      } else {
        seenAt = performance.now();
        this.#compareWithBefore(view);
        await this.#audit();
        const isOver = view.finished_at !== null || performance.now() - this.#movedAt > stallMs;
        if (isOver && this.#underWay === 0) return view;
        if (view.books.is_planned && !isOver) this.#begin(view);
        if (view.state === 'halted') await this.#resume(view);
      }
      await sleep(pollMs);
    }
  }

  #compareWithBefore({ books }: NotificationView): void {
    const before = this.#before;
    this.#before = books;
    const done = Object.values(books.outcomes).reduce((sum, devices) => sum + devices, 0);
    if (!books.balanced || books.audience !== done + books.pending || books.pending < 0) {
      this.problems.push(`in mid-send: audience ${books.audience}, outcomes ${done}, pending ${books.pending}`);
    }
    if (before === undefined || books.pending !== before.pending || books.audience !== before.audience) {
      this.#movedAt = performance.now();
    }
    for (const [outcome, devices] of Object.entries(before?.outcomes ?? {})) {
      if (books.outcomes[outcome]! < devices) this.problems.push(`in mid-send: ${outcome} went down from ${devices}`);
    }
  }

  /** Checks the rows themselves, as one snapshot shows them. */
  async #audit(): Promise<void> {
    const faults = await auditBooks(this.#run.db, this.#run.notificationId).catch(() => undefined);
    if (faults === undefined) return;
    if (faults.length > 0)
      this.problems.push(`in mid-send: batches disagree with their rows: ${JSON.stringify(faults)}`);
    else this.looks++;
  }

  /** Begins the disturbances that are due and touch nothing that another one touches. */
  #begin({ books }: NotificationView): void {
    const share = (books.audience - books.pending) / books.audience;
    for (const disturbance of this.#waiting.filter(({ at }) => at <= share)) {
      const targets = targetsOf(disturbance);
      if (targets.some((target) => this.#busy.has(target))) continue;
      this.#waiting.splice(this.#waiting.indexOf(disturbance), 1);
      for (const target of targets) this.#busy.add(target);
      this.#underWay++;
      this.story.push(`${Math.round(share * 100)} %: ${disturbance.kind}`);
      disturb(this.#run, disturbance)
        .then((problems) => this.problems.push(...problems))
        .catch((error: unknown) => {
          this.problems.push(`${disturbance.kind}: ${error instanceof Error ? error.message : error}`);
        })
        .finally(() => {
          for (const target of targets) this.#busy.delete(target);
          this.#underWay--;
          this.#movedAt = performance.now();
          this.story.push(`    over: ${disturbance.kind}`);
        });
    }
  }

  /** Resumes as the operator on call does when the cause is gone. A halt that no disturbance explains is a fault. */
  async #resume({ halt }: NotificationView): Promise<void> {
    if (this.#busy.has('state')) return;
    if (halt !== null && !this.#run.tally.expectedHalts.has(halt.reason)) {
      this.problems.push(`halted for no reason: ${halt.reason}, ${halt.detail}`);
    }
    this.story.push(`resumed after a halt: ${halt?.reason}`);
    await this.#run.operator.ask('resume');
  }
}
