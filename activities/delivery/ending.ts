import type { Claim } from '../../db/batches.ts';
import { isRefusedByDatabase } from '../../db/database-error.ts';
import type { DeliverBatchResult } from '../../domain/delivery.ts';
import { exhausted } from '../../domain/exhausted.ts';
import type { Halt, SendEnd } from './run-end.ts';

/** The shortest wait worth a durable timer. */
const minWaitMs = 50;
/** How long a platform that cannot be sent to waits for the rest of the send. */
const partWaitMs = 300_000;

/** How a call of `deliverBatch` ends: what the batch's workflow is told, … */
export interface Ending extends Pick<DeliverBatchResult, 'status' | 'reason'> {
  /** Default 0. */
  waitMs?: number;
  /** Default 0. */
  deferred?: number;
  host?: string | undefined;
  /** … and what is done before: the send is halted, … */
  halt?: Halt;
  /** … or every device of the batch that is left gets this outcome. */
  settle?: { claim: Claim; outcome: 'expired' };
}

/** What a run leaves of its batch. */
export interface Left {
  claim: Claim;
  /** Every device has its outcome. */
  isFinished: boolean;
  /** Devices that wait for a later attempt, for their host or for their platform. */
  waiting: number;
  /** Milliseconds until the first device that was refused for now is due; undefined: none was. */
  nextDueMs: number | undefined;
  /** Whether the send has devices, in whatever batch, that were never tried. Matters to `partAtFault` alone. */
  isAnyUntried: boolean;
}

export const finished: Ending = { status: 'finished', reason: 'every device has its outcome' };

/**
 * How a call ends whose run has ended so. Pure.
 * @throws the error of a failed run, where another attempt may go well
 */
export function endingOf(end: Exclude<SendEnd, { kind: 'askElsewhere' }>, left: Left): Ending {
  if (left.isFinished) return finished;
  const { claim, waiting: deferred, nextDueMs } = left;
  switch (end.kind) {
    case 'noneDue':
      return { status: 'deferred', reason: 'refused for now', waitMs: timerMs(nextDueMs, end.blockedMs), deferred };
    case 'wait':
      return { status: 'waiting', reason: end.reason, waitMs: timerMs(end.waitMs), deferred, host: end.host };
    case 'shutdown':
      // Told, not thrown: another worker goes on at once, and no attempt of the activity is used up.
      return { status: 'waiting', reason: 'worker shut down', deferred };
    case 'expired':
      return { status: 'finished', reason: 'expired', settle: { claim, outcome: 'expired' } };
    case 'halt':
      return halted(end.halt);
    case 'partAtFault':
      if (nextDueMs === undefined && !left.isAnyUntried) return halted(end.halt);
      return { status: 'deferred', reason: end.halt.reason, waitMs: timerMs(nextDueMs, partWaitMs), deferred };
    case 'stopped':
      return { status: 'stopped', reason: end.reason, deferred };
    case 'failed':
      return haltedForBooks(end.error, claim.seq);
    default:
      return exhausted(end);
  }
}

export function halted(halt: Halt): Ending {
  return { status: 'stopped', reason: halt.reason.replaceAll('_', ' '), halt };
}

/**
 * What cannot be recorded is not sent: every further attempt would send to some devices again.
 * @throws the error, where PostgreSQL has not refused the outcomes: another attempt may go well
 */
export function haltedForBooks(error: unknown, seq: number): Ending {
  if (!isRefusedByDatabase(error)) throw error;
  return halted({
    reason: 'books',
    detail: `PostgreSQL refuses to record outcomes of batch ${seq}: ${error.message}`,
  });
}

/** Until the first of these; undefined: that one does not matter. */
function timerMs(...waits: (number | undefined)[]): number {
  const known = waits.filter((ms) => ms !== undefined);
  return known.length === 0 ? minWaitMs : Math.max(minWaitMs, Math.ceil(Math.min(...known)));
}
