import { countWait, runs } from '../../telemetry/delivery-metrics.ts';
import { silenceMs } from './batch-slot.ts';
import { Dispatcher } from './dispatcher.ts';
import type { Left } from './ending.ts';
import { HostTroubles } from './host-troubles.ts';
import type { PendingDevice } from './pending.ts';
import { Recorder } from './recorder.ts';
import type { Run } from './run.ts';
import { RunBooks } from './run-books.ts';
import { RunEnd, type SendEnd } from './run-end.ts';
import { RunHosts } from './run-hosts.ts';
import { RunParts } from './run-parts.ts';
import { TokenJudgement } from './token-judgement.ts';
import { Verdicts } from './verdicts.ts';
import { WindowSpans } from './window-spans.ts';
import { Windows } from './windows.ts';

/** Devices that were refused for now become due one by one. */
const gatherMs = 250;

/** One run over a claimed batch or lane: each window is dispatched while the next one is being reserved. */
export class Sender {
  readonly #run: Run;
  readonly #end: RunEnd;
  readonly #hosts: RunHosts;
  readonly #parts: RunParts;
  readonly #recorder: Recorder;
  readonly #books: RunBooks;
  readonly #troubles: HostTroubles;
  readonly #judgement: TokenJudgement;
  readonly #dispatcher: Dispatcher;
  readonly #windows: Windows;
  readonly #spans: WindowSpans | undefined;

  constructor(run: Run) {
    const wakeUp = () => this.#dispatcher.wakeUp();
    const end = new RunEnd(() => {
      wakeUp();
      run.pending.end();
    });
    const { slot } = run;
    const hosts = new RunHosts(run, wakeUp);
    const parts = new RunParts(run, hosts);
    const recorder = new Recorder(run, (error) => end.fail(error));
    const books = new RunBooks(run, recorder);
    const troubles = new HostTroubles({ run, end, hosts, books });
    const judgement = new TokenJudgement({ run, end, parts, books });
    const verdicts = new Verdicts({ run, end, parts, books, troubles, judgement });
    this.#run = run;
    this.#end = end;
    this.#hosts = hosts;
    this.#parts = parts;
    this.#recorder = recorder;
    this.#books = books;
    this.#troubles = troubles;
    this.#judgement = judgement;
    this.#spans = run.tracing && new WindowSpans(run.tracing, run.progress);
    this.#dispatcher = new Dispatcher({ run, end, slot, hosts, parts, books, troubles, verdicts, spans: this.#spans });
    this.#windows = new Windows({ run, end, slot, hosts, recorder, troubles, judgement });
  }

  /** Requests whose answers are no longer waited for, once the run is over. */
  get inFlight(): number {
    return this.#dispatcher.inFlight;
  }

  get left(): Omit<Left, 'claim' | 'isAnyUntried'> {
    const { pending } = this.#run;
    return {
      isFinished: this.#recorder.isFinished,
      waiting: pending.deferred + this.#books.devicesSetAside,
      nextDueMs: pending.msUntilNextDeferred(),
    };
  }

  /** Sends until nothing can be sent now, or the send must stop. All that was answered is recorded when it returns. */
  async run(): Promise<SendEnd> {
    const { stop, progress } = this.#run;
    const onStop = () => this.#end.stopFor({ kind: 'shutdown' });
    if (stop.aborted) onStop();
    stop.addEventListener('abort', onStop);
    const looks = setInterval(
      () => this.#run.slot.leaveInSilence(progress.answered, this.#dispatcher.inFlight),
      silenceMs,
    );
    await this.#orEnd(() => this.#send());
    await this.#dispatcher.drain();
    this.#spans?.endAll();
    clearInterval(looks);
    this.#run.slot.takeBack();
    await this.#orEnd(() => this.#leave());
    stop.removeEventListener('abort', onStop);
    const end = this.#end.why ?? (await this.#endWithNoneDue());
    runs.inc({ provider: this.#run.provider.name, end: end.kind });
    return end;
  }

  async #send(): Promise<void> {
    if (this.#run.pending.isAskingElsewhere) await this.#askElsewhere();
    do {
      await this.#sendWindows();
      await this.#dispatcher.drain();
    } while (await this.#waitForDeferred());
  }

  /** @returns true when a device that was refused for now can be tried again */
  async #waitForDeferred(): Promise<boolean> {
    const dueMs = this.#run.pending.msUntilNextDeferred();
    if (this.#end.why !== undefined || dueMs === undefined) return false;
    // Not for each device on its own: those that are due shortly after it are one window with it.
    const waitMs = Math.max(dueMs, gatherMs);
    if (!this.#run.slot.mayWaitForDeferred(waitMs)) return false;
    countWait(this.#run.provider.name, 'deferred', waitMs);
    await this.#run.slot.waitHere(waitMs, 'refused for now');
    return this.#end.why === undefined;
  }

  /** Only the devices that were brought forward; what they say decides whether the others are sent to. */
  async #askElsewhere(): Promise<void> {
    await this.#sendWindows();
    await this.#dispatcher.drain();
    this.#run.pending.endElsewhere();
    if (this.#end.why !== undefined) return;
    for (const part of this.#parts.all) {
      if (part.breaker.judgeElsewhere() === 'halt') await this.#judgement.haltForTokens(part);
    }
  }

  async #sendWindows(): Promise<void> {
    let next = this.#windows.next();
    for (;;) {
      const devices = await next;
      if (devices === undefined) return;
      const startedAt = performance.now();
      // Reserved while this one is being sent. A failure is met where it is awaited, not here.
      next = this.#windows.next();
      next.catch(() => {});
      const handedOver = this.#startSpan(devices);
      await this.#dispatcher.dispatch(devices).finally(handedOver);
      this.#windows.adapt({ devices: devices.length, elapsedMs: performance.now() - startedAt });
    }
  }

  /** @returns what is to be called when the window was handed over */
  #startSpan(devices: PendingDevice[]): (() => void) | undefined {
    if (this.#spans === undefined) return undefined;
    const { app, provider } = this.#run;
    const hosts = () => this.#hosts.namesOf(devices);
    return this.#spans.start({ app, provider: provider.name, devices: devices.length, hosts });
  }

  /** Everything that was reserved gets its outcome, is set aside or given back. */
  async #leave(): Promise<void> {
    await this.#judgement.judgeAll();
    await this.#troubles.leave();
    await this.#recorder.flush();
    await this.#books.giveBack();
  }

  /** The run went through without a reason to stop. */
  async #endWithNoneDue(): Promise<SendEnd> {
    const fault = this.#parts.firstFault;
    if (fault !== undefined) return { kind: 'partAtFault', halt: fault.halt };
    const blocked = this.#books.devicesSetAside > 0 ? this.#hosts.firstBlocked : undefined;
    if (blocked === undefined) return { kind: 'noneDue' };
    if (await this.#troubles.isAlone()) return this.#end.why!;
    return { kind: 'noneDue', blockedMs: this.#hosts.msUntilFree(blocked) };
  }

  /** A failure is the end of the run. */
  async #orEnd(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#end.fail(error);
    }
  }
}
