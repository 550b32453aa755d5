import { FencedError } from '../../db/fenced-error.ts';
import type { NotificationSummary } from '../../domain/notification.ts';
import type { WaitCause } from '../../telemetry/delivery-metrics.ts';

/** Why a send is halted. */
export type Halt = NonNullable<NotificationSummary['halt']>;

/** Why a run of the sender ended. */
export type SendEnd =
  /** Every device that is left waits for a later attempt; `blockedMs`: some of them until their host is free. */
  | { kind: 'noneDue'; blockedMs?: number }
  /** With a `host`: every device that is left is sent to by that one, and others of the provider's are not blocked. */
  | { kind: 'wait'; waitMs: number; reason: string; host?: string }
  | { kind: 'stopped'; reason: 'paused' | 'halted' | 'cancelled' | 'fenced' }
  | { kind: 'expired' }
  /** The configuration or the message is at fault, for every device. */
  | { kind: 'halt'; halt: Halt }
  /** All platforms but one were sent to: a fault of the configuration keeps the devices of that one waiting. */
  | { kind: 'partAtFault'; halt: Halt }
  /** Before a halt on suspicion, so many devices elsewhere in the audience are to be asked. */
  | { kind: 'askElsewhere'; devices: number; suspects: number }
  | { kind: 'shutdown' }
  | { kind: 'failed'; error: unknown };

/** Whatever asks for fewer requests a second: somebody here, or the provider. */
export const rateLimit = 'rate limit';

/** What is waited for after a run that ended so; undefined: nothing. */
export function waitCauseOf(end: SendEnd): WaitCause | undefined {
  if (end.kind === 'noneDue') return end.blockedMs === undefined ? 'deferred' : 'host';
  if (end.kind === 'wait') return end.reason === rateLimit ? 'rate_limit' : 'host';
  return end.kind === 'partAtFault' ? 'platform' : undefined;
}

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

  /** Stronger than a wait or a question: the run after those would meet the same fault. */
  haltFor(halt: Halt): void {
    if (this.#why?.kind === 'wait' || this.#why?.kind === 'askElsewhere') this.#why = undefined;
    this.stopFor({ kind: 'halt', halt });
  }

  fail(error: unknown): void {
    this.stopFor(error instanceof FencedError ? { kind: 'stopped', reason: 'fenced' } : { kind: 'failed', error });
  }
}
