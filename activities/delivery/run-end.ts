import { FencedError } from '../../db/fenced-error.ts';
import type { HaltReason } from '../../domain/notification-state.ts';

/** Why a run of the sender ended. */
export type SendEnd =
  /** `blockedMs`: some wait so long for their host. */
  | { kind: 'exhausted'; blockedMs?: number }
  /** With a `host`: everybody left is sent to by that one, and others of the provider's are not blocked. */
  | { kind: 'wait'; waitMs: number; reason: string; host?: string }
  | { kind: 'stopped'; reason: 'paused' | 'halted' | 'cancelled' | 'fenced' }
  | { kind: 'expired' }
  | { kind: 'misconfigured'; fault: HaltReason; detail: string }
  /** All but one platform were sent to: a configuration fault of that platform keeps its devices waiting. */
  | { kind: 'held'; fault: HaltReason; detail: string }
  /** Before a halt on suspicion, so many devices elsewhere in the audience are to be asked. */
  | { kind: 'askElsewhere'; devices: number; suspects: number }
  | { kind: 'shutdown' }
  | { kind: 'failed'; error: unknown };

/** Why one run over a batch is to end: undefined for as long as it goes on. */
export class RunEnd {
  #why: SendEnd | undefined;
  readonly #onStop: () => void;

  constructor(onStop: () => void) {
    this.#onStop = onStop;
  }

  get why(): SendEnd | undefined {
    return this.#why;
  }

  /** The first reason counts. */
  stopFor(end: SendEnd): void {
    this.#why ??= end;
    this.#onStop();
  }

  /** Stronger than a wait. */
  haltFor(fault: HaltReason, detail: string): void {
    if (this.#why?.kind === 'wait' || this.#why?.kind === 'askElsewhere') this.#why = undefined;
    this.stopFor({ kind: 'misconfigured', fault, detail });
  }

  fail(error: unknown): void {
    this.stopFor(error instanceof FencedError ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
  }
}
