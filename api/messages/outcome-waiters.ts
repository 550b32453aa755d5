import { pause } from '../../domain/pause.ts';

interface Waiter {
  messageId: string;
  end: () => void;
}

/** Requests that wait for the outcomes of their messages. All of a process ask by one statement, and nobody asks while none waits. */
export class OutcomeWaiters {
  readonly #findPending: (messageIds: string[]) => Promise<Set<string>>;
  readonly #stopping: AbortSignal;
  readonly #intervalMs: number;
  readonly #waiting = new Set<Waiter>();
  #isAsking = false;

  /**
   * @param findPending those of the messages that have a device without an outcome
   * @param stopping when it is aborted, nobody waits any longer
   * @param intervalMs between two questions; default 20
   */
  constructor(
    findPending: (messageIds: string[]) => Promise<Set<string>>,
    stopping: AbortSignal = new AbortController().signal,
    intervalMs = 20,
  ) {
    this.#findPending = findPending;
    this.#stopping = stopping;
    this.#intervalMs = intervalMs;
    stopping.addEventListener('abort', () => this.#endAll());
  }

  /**
   * Resolves once every device of the message has its outcome, or `timeoutMs` are over, `gone` or `stopping` is aborted, or the question
   * failed. Never rejects: the message is accepted, whatever becomes of the wait.
   */
  wait(messageId: string, timeoutMs: number, gone: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (gone.aborted || this.#stopping.aborted) {
        resolve();
        return;
      }
      const end = () => {
        clearTimeout(timer);
        gone.removeEventListener('abort', end);
        this.#waiting.delete(waiter);
        resolve();
      };
      const waiter = { messageId, end };
      const timer = setTimeout(end, timeoutMs);
      gone.addEventListener('abort', end);
      this.#waiting.add(waiter);
      if (!this.#isAsking) void this.#ask();
    });
  }

  async #ask(): Promise<void> {
    this.#isAsking = true;
    while (this.#waiting.size > 0) {
      await pause(this.#intervalMs, this.#stopping);
      const asked = [...this.#waiting];
      if (asked.length === 0) break;
      const ids = [...new Set(asked.map(({ messageId }) => messageId))];
      // Where the database is away, an answer that says "accepted" is better than one that comes late.
      const pending = await this.#findPending(ids).catch(() => new Set<string>());
      for (const { messageId, end } of asked) if (!pending.has(messageId)) end();
    }
    this.#isAsking = false;
  }

  #endAll(): void {
    for (const { end } of [...this.#waiting]) end();
  }
}
