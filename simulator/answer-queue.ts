/** A provider that takes a set number of requests a second: the others wait in one line, over all connections of a listener. */
import type { SimulatorSettings } from './state.ts';

type PaceSettings = Pick<SimulatorSettings, 'answersPerSecond' | 'answerBurstMs' | 'queuesPings'>;

/** How soon a change of the settings takes effect, at the latest. */
const longestTurnMs = 20;

export class AnswerQueue {
  readonly #settings: PaceSettings;
  #waiting: { isRequest: boolean; proceed: () => void }[] = [];
  #head = 0;
  #timer: NodeJS.Timeout | undefined;
  #burstAtMs = 0;
  /** Requests that may proceed; a fraction is kept for the next turn. */
  #credit = 0;

  /** @param settings read at every turn */
  constructor(settings: PaceSettings) {
    this.#settings = settings;
  }

  /** The request proceeds when its turn comes: at once where no pace is set. */
  addRequest(proceed: () => void): void {
    if (this.#settings.answersPerSecond === 0 && this.#isEmpty) proceed();
    else this.#add(true, proceed);
  }

  /** The PING proceeds behind the requests before it, if the settings say so; it uses up no turn. */
  addPing(proceed: () => void): void {
    if (!this.#settings.queuesPings || this.#isEmpty) proceed();
    else this.#add(false, proceed);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#waiting = [];
    this.#head = 0;
  }

  get #isEmpty(): boolean {
    return this.#head === this.#waiting.length;
  }

  #add(isRequest: boolean, proceed: () => void): void {
    if (this.#timer === undefined) {
      // No credit is saved up while no request waits.
      this.#burstAtMs = performance.now();
      this.#credit = 0;
      this.#plan();
    }
    this.#waiting.push({ isRequest, proceed });
  }

  #plan(): void {
    this.#timer = setTimeout(this.#turn, Math.max(1, Math.min(this.#settings.answerBurstMs, longestTurnMs)));
  }

  readonly #turn = (): void => {
    const nowMs = performance.now();
    const { answersPerSecond, answerBurstMs } = this.#settings;
    if (nowMs - this.#burstAtMs >= answerBurstMs || answersPerSecond === 0) this.#release(nowMs);
    if (this.#isEmpty) this.#timer = undefined;
    else this.#plan();
  };

  #release(nowMs: number): void {
    const { answersPerSecond } = this.#settings;
    this.#credit += ((nowMs - this.#burstAtMs) * answersPerSecond) / 1000;
    this.#burstAtMs = nowMs;
    while (!this.#isEmpty) {
      const { isRequest, proceed } = this.#waiting[this.#head]!;
      if (isRequest && answersPerSecond > 0) {
        if (this.#credit < 1) break;
        this.#credit--;
      }
      this.#head++;
      proceed();
    }
    if (this.#head > 1024 || this.#isEmpty) {
      this.#waiting.splice(0, this.#head);
      this.#head = 0;
    }
  }
}
