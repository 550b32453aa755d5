import type { Tracing, WindowSpan } from '../../telemetry/tracing.ts';

/** `dispatched` and `answered` are counts of requests, of the whole run. */
interface Progress {
  dispatched: number;
  answered: number;
}

/**
 * Traces of a run's windows: each lasts until as many answers have come as requests had left when it was handed over. Answers come in any
 * order, so it is known of no single one to which window it belongs; counting costs nothing.
 */
export class WindowSpans {
  readonly #tracing: Tracing;
  readonly #progress: Progress;
  /** Handed over, and not answered yet: the oldest first. */
  readonly #open: { span: WindowSpan; until: number }[] = [];

  constructor(tracing: Tracing, progress: Progress) {
    this.#tracing = tracing;
    this.#progress = progress;
  }

  /** @returns what is to be called when the window was handed over; undefined: nobody records it */
  start(window: { app: string; provider: string; devices: number; hosts(): string[] }): (() => void) | undefined {
    const span = this.#tracing.startWindow();
    if (span === undefined) return undefined;
    const { app, provider, devices, hosts } = window;
    const { dispatched } = this.#progress;
    const startedAt = performance.now();
    span.set({
      ...{ 'carillon.app': app, 'carillon.provider': provider, 'carillon.devices': devices },
      'carillon.hosts': hosts().join(' '),
    });
    return () => {
      span.set({
        'carillon.requests': this.#progress.dispatched - dispatched,
        'carillon.hand_over_ms': Math.round(performance.now() - startedAt),
      });
      this.#open.push({ span, until: this.#progress.dispatched });
      this.endAnswered();
    };
  }

  endAnswered(): void {
    while (this.#open.length > 0 && this.#open[0]!.until <= this.#progress.answered) this.#open.shift()!.span.end();
  }

  /** The run is over, or answers are no longer waited for: how many are missing is told with each. */
  endAll(): void {
    for (const { span, until } of this.#open.splice(0)) {
      span.set({ 'carillon.unanswered': Math.max(0, until - this.#progress.answered) });
      span.end();
    }
  }
}
