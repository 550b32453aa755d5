import { Context } from '@temporalio/activity';
import { type Claim, claimBatch, hasUntriedDevices } from '../db/batches.ts';
import { isRefusedByDatabase } from '../db/database-error.ts';
import { haltNotificationOfAnyApp } from '../db/notification-moves.ts';
import { getNotificationOfAnyApp, getSummaryOfAnyApp } from '../db/notifications.ts';
import { rehearseRecording } from '../db/record-deliveries.ts';
import { retryDatabase } from '../db/retry-database.ts';
import { settleBatch } from '../db/settle-batch.ts';
import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import type { Notification } from '../domain/notification.ts';
import type { HaltReason } from '../domain/notification-state.ts';
import { PayloadError, type PreparedMessage, type PushProvider } from '../providers/provider.ts';
import type { ActivityDeps } from './activities.ts';
import { BatchSender } from './delivery/batch-sender.ts';
import { DatabaseClock } from './delivery/database-clock.ts';
import { PendingDevices } from './delivery/pending-devices.ts';
import type { SendEnd } from './delivery/run-end.ts';
import { toHostInTrouble } from './read-notification.ts';
import { whileBeating } from './while-beating.ts';

/** A batch that fails so often is poison: somebody must look, and the rest of the send must not wait for it. */
const maxActivityAttempts = 10;
/** The shortest wait worth a durable timer. */
const minWaitMs = 50;
/** How long a platform that cannot be sent to waits for the rest of the send. */
const heldWaitMs = 300_000;

/**
 * Sends one batch until every device has its outcome or the rest must wait. Keyed by the batch's fence: a second run, at the
 * same time or later, takes the batch over and goes on with the devices that have no outcome; the first writes nothing more.
 */
export async function deliverBatch(deps: ActivityDeps, input: DeliverBatchInput): Promise<DeliverBatchResult> {
  const { attempt } = Context.current().info;
  const { notificationId, seq } = input;
  const log = { notificationId, batch: seq, provider: input.provider, activityAttempt: attempt };
  let sender: BatchSender | undefined;
  const progress = () => ({ dispatched: sender?.dispatched ?? 0, answered: sender?.answered ?? 0 });
  return whileBeating(async (stop) => {
    const grace = startGrace(stop, deps.config.shutdownGraceMs);
    try {
      const notification = await retryDatabase(() => getNotificationOfAnyApp(deps.db, notificationId), stop);
      if (notification.state !== 'sending') return report(deps, input, 'stopped', notification.state);
      if (attempt >= maxActivityAttempts) {
        await halt(
          deps,
          log,
          notificationId,
          'poison_batch',
          `Batch ${seq} failed ${attempt - 1} times; its last error is in Temporal's UI.`,
        );
        return report(deps, input, 'stopped', 'poison batch');
      }
      const clock = new DatabaseClock();
      const ready = prepare(deps.providers[input.provider], input, notification, clock);
      if ('fault' in ready) {
        await halt(deps, log, notificationId, ready.fault, ready.detail);
        return report(deps, input, 'stopped', ready.fault);
      }
      try {
        await retryDatabase(() => rehearseRecording(deps.db, notificationId, seq), stop);
      } catch (error) {
        return await haltForBooks(deps, input, log, error);
      }
      const launch = { appId: notification.appId, launchedAt: notification.launchedAt! };
      for (let elsewhere = { devices: 0, suspects: 0 }; ; ) {
        const claim = await retryDatabase(() => claimBatch(deps.db, notificationId, seq), stop);
        if (claim === undefined) return report(deps, input, 'finished', 'every device has its outcome');
        const pending = await retryDatabase(() => PendingDevices.load(deps, launch, claim, clock), stop);
        const { devices } = elsewhere;
        if (devices > 0) await retryDatabase(() => pending.askElsewhere(deps.db, devices), stop);
        sender = new BatchSender({
          db: deps.db,
          pool: deps.pool,
          claim,
          appId: notification.appId,
          expiresAt: notification.expiresAt,
          inDoubtPolicy: notification.inDoubtPolicy,
          ...ready,
          pending,
          suspectsBefore: elsewhere.suspects,
          overload: deps.overload,
          providerHosts: deps.providerHosts,
          slots: deps.slots,
          config: deps.config,
          random: deps.random ?? Math.random,
          stop,
          giveUp: grace.giveUp,
        });
        const end = await sender.run();
        if (sender.inFlight > 0) deps.log.warn({ ...log, inFlight: sender.inFlight }, 'left answers behind: in doubt');
        if (end.kind !== 'askElsewhere') return await conclude(deps, input, log, claim, sender, pending, end);
        elsewhere = end;
      }
    } finally {
      grace.release();
    }
  }, progress);
}

async function conclude(
  deps: ActivityDeps,
  input: DeliverBatchInput,
  log: object,
  claim: Claim,
  sender: BatchSender,
  pending: PendingDevices,
  end: Exclude<SendEnd, { kind: 'askElsewhere' }>,
): Promise<DeliverBatchResult> {
  if (sender.isFinished) return report(deps, input, 'finished', 'every device has its outcome');
  const waiting = pending.deferred + sender.devicesSetAside;
  switch (end.kind) {
    case 'exhausted': {
      const { blockedMs = Number.POSITIVE_INFINITY } = end;
      const nextDeferredMs = pending.msUntilNextDeferred() ?? (end.blockedMs === undefined ? 0 : blockedMs);
      const waitMs = Math.max(minWaitMs, Math.min(nextDeferredMs, blockedMs));
      return report(deps, input, 'deferred', 'refused for now', waitMs, waiting);
    }
    case 'wait':
      return report(deps, input, 'waiting', end.reason, Math.max(minWaitMs, end.waitMs), waiting, end.host);
    case 'shutdown':
      // Returned, not thrown: another worker goes on at once and no attempt of the activity is used up.
      return report(deps, input, 'waiting', 'worker shut down', 0, waiting);
    case 'expired':
      await deps.db.transaction().execute((trx) => settleBatch(trx, claim, 'expired'));
      return report(deps, input, 'finished', 'expired');
    case 'misconfigured':
      await halt(deps, log, input.notificationId, end.fault, end.detail);
      return report(deps, input, 'stopped', end.fault);
    case 'held': {
      const nextDeferredMs = pending.msUntilNextDeferred();
      if (nextDeferredMs === undefined && !(await hasUntriedDevices(deps.db, input.notificationId))) {
        await halt(deps, log, input.notificationId, end.fault, end.detail);
        return report(deps, input, 'stopped', end.fault);
      }
      deps.log.warn(
        { ...log, devices: sender.devicesSetAside, reason: end.fault, detail: end.detail },
        'a platform waits',
      );
      const waitMs = Math.max(minWaitMs, Math.min(heldWaitMs, nextDeferredMs ?? heldWaitMs));
      return report(deps, input, 'deferred', end.fault, waitMs, waiting);
    }
    case 'stopped':
      deps.log.info({ ...log, reason: end.reason }, 'batch stopped');
      return report(deps, input, 'stopped', end.reason, 0, waiting);
    case 'failed':
      deps.log.error({ ...log, err: end.error }, 'batch failed');
      return haltForBooks(deps, input, log, end.error);
  }
}

type Ready = { provider: PushProvider; prepared: PreparedMessage };

function prepare(
  provider: PushProvider | undefined,
  input: DeliverBatchInput,
  notification: Notification,
  clock: DatabaseClock,
): Ready | { fault: HaltReason; detail: string } {
  if (provider === undefined) {
    return { fault: 'credentials', detail: `The worker has no credential for ${input.provider}.` };
  }
  try {
    const { id: notificationId, message, expiresAt } = notification;
    const prepared = provider.prepare({ notificationId, message, ...(expiresAt && { expiresAt }) }, clock.nowMs);
    return { provider, prepared };
  } catch (error) {
    if (error instanceof PayloadError) return { fault: 'payload', detail: `${error.field}: ${error.message}` };
    throw error;
  }
}

async function halt(
  deps: ActivityDeps,
  log: object,
  notificationId: string,
  reason: HaltReason,
  detail: string,
): Promise<void> {
  if (await haltNotificationOfAnyApp(deps.db, notificationId, reason, detail)) {
    deps.log.error({ ...log, reason, detail }, 'notification halted');
  }
}

/**
 * What cannot be recorded is not sent: PostgreSQL refuses the outcomes, and every further attempt would send to some devices again.
 * @throws the error, where another attempt may go well
 */
async function haltForBooks(
  deps: ActivityDeps,
  input: DeliverBatchInput,
  log: object,
  error: unknown,
): Promise<DeliverBatchResult> {
  if (!isRefusedByDatabase(error)) throw error;
  const detail = `PostgreSQL refuses to record outcomes of batch ${input.seq}: ${error.message}`;
  await halt(deps, log, input.notificationId, 'books', detail);
  return report(deps, input, 'stopped', 'books');
}

async function report(
  deps: ActivityDeps,
  input: DeliverBatchInput,
  status: DeliverBatchResult['status'],
  reason: string,
  waitMs = 0,
  deferred = 0,
  host?: string,
): Promise<DeliverBatchResult> {
  const { books, unreachable } = await getSummaryOfAnyApp(deps.db, input.notificationId);
  return {
    ...{ status, waitMs: Math.ceil(waitMs), deferred, reason, books },
    ...(host !== undefined && { host }),
    ...(unreachable.length > 0 && { unreachable: unreachable.map(toHostInTrouble) }),
  };
}

/**
 * `stop`: cancelled or shutting down, dispatch nothing more. `giveUp`: the grace for answers under way is over too, well
 * before the worker is forced to end.
 */
function startGrace(stop: AbortSignal, graceMs: number): { giveUp: AbortSignal; release: () => void } {
  const giveUp = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onStop = () => {
    timer = setTimeout(() => giveUp.abort(), graceMs);
  };
  if (stop.aborted) onStop();
  else stop.addEventListener('abort', onStop, { once: true });
  return {
    giveUp: giveUp.signal,
    release: () => {
      clearTimeout(timer);
      stop.removeEventListener('abort', onStop);
    },
  };
}
