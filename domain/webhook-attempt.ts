/** What became of one request; `error` says it to people. No status: no answer. */
export interface WebhookAttempt {
  status?: number | undefined;
  error?: string | undefined;
  /** The receiver asked for patience, in milliseconds. */
  retryAfterMs?: number | undefined;
}

/** `gone`: the receiver wants nothing any more. */
export type AttemptVerdict =
  | { kind: 'delivered' }
  | { kind: 'retry'; waitMs: number /** For the whole webhook. */; blockMs: number }
  | { kind: 'failed'; blockMs: number }
  | { kind: 'gone' };

const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;

/** Waits after the first attempt, the second, …: some three days (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md). */
const waitsMs = [5 * second, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour];
/** Either way, so that what failed together does not come back together. */
const jitter = 0.1;
const longestRetryAfterMs = 24 * hour;

/** A webhook that nothing was delivered to for so long is disabled. */
export const disableAfterMs = 5 * 24 * hour;

/** So many failures in a row, one on each connection, are no accident: from then on one request at a time asks how it is. */
export const failuresBeforePause = 8;
const longestPauseMs = 5 * minute;

/** @param attempts with this one. @param failures in a row of the webhook, with this one. @param random 0 up to 1 */
export function judgeAttempt(
  { status, retryAfterMs = 0 }: WebhookAttempt,
  attempts: number,
  failures: number,
  random: number,
): AttemptVerdict {
  if (status !== undefined && status >= 200 && status < 300) return { kind: 'delivered' };
  if (status === 410) return { kind: 'gone' };
  const askedMs = Math.min(retryAfterMs, longestRetryAfterMs);
  const blockMs = Math.max(askedMs, pauseMs(failures));
  const baseMs = waitsMs[attempts - 1];
  if (baseMs === undefined) return { kind: 'failed', blockMs };
  const waitMs = Math.round(baseMs * (1 - jitter + 2 * jitter * random));
  return { kind: 'retry', waitMs: Math.max(waitMs, askedMs), blockMs };
}

/** A receiver that is down is not asked anew for each of the events that wait for it. */
function pauseMs(failures: number): number {
  if (failures < failuresBeforePause) return 0;
  return Math.min(second * 2 ** Math.min(failures - failuresBeforePause, 20), longestPauseMs);
}
