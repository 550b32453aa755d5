import { Context } from '@temporalio/activity';
import { hasUntriedDevices } from '../db/batches.ts';
import { claimToSend } from '../db/claim-to-send.ts';
import { transactionWithClient } from '../db/connect.ts';
import { haltNotificationOfAnyApp } from '../db/notification-moves.ts';
import { getNotificationOfAnyApp, getSummaryOfAnyApp } from '../db/notifications.ts';
import { rehearseRecording } from '../db/record-deliveries.ts';
import { retryDatabase } from '../db/retry-database.ts';
import { settleBatch } from '../db/settle-batch.ts';
import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import type { Notification } from '../domain/notification.ts';
import { PayloadError, type PreparedMessage, type PushProvider } from '../providers/provider.ts';
import { countRecorded, countWait, halts } from '../telemetry/delivery-metrics.ts';
import type { ActivityDeps } from './activities.ts';
import { appNameOf } from './app-names.ts';
import { blame, type ProviderLease } from './app-providers.ts';
import { BatchSlot } from './delivery/batch-slot.ts';
import { BatchBooks } from './delivery/claimed-books.ts';
import { DatabaseClock } from './delivery/database-clock.ts';
import { type Ending, endingOf, finished, halted, haltedForBooks } from './delivery/ending.ts';
import { PendingDevices } from './delivery/pending-devices.ts';
import type { Run } from './delivery/run.ts';
import { waitCauseOf } from './delivery/run-end.ts';
import { Sender } from './delivery/sender.ts';
import { startGrace } from './delivery/shutdown-grace.ts';
import { toHostInTrouble } from './read-notification.ts';
import { whileBeating } from './while-beating.ts';

/** A batch that fails so often is poison: it needs a person, and the rest of the send must not wait for it. */
const maxActivityAttempts = 10;

interface Attempt extends Pick<Run, 'progress' | 'stop'> {
  /** Temporal's count, from 1. */
  activityAttempt: number;
}

/** One call of the activity. */
interface DeliverCall extends Attempt, Pick<Run, 'giveUp'> {
  deps: ActivityDeps;
  input: DeliverBatchInput;
  /** As it was when the call began. */
  notification: Notification;
  /** Names the batch in every line of the log. */
  names: object;
}

/**
 * Sends one batch until every device has its outcome or the rest must wait. Keyed by the batch's fence: a second run, at the
 * same time or later, takes the batch over and goes on with the devices that have no outcome; the first writes nothing more.
 */
export function deliverBatch(deps: ActivityDeps, input: DeliverBatchInput): Promise<DeliverBatchResult> {
  const { attempt: activityAttempt } = Context.current().info;
  const progress = { dispatched: 0, answered: 0 };
  return whileBeating(
    (stop) => carryOutDelivery(deps, input, { activityAttempt, progress, stop }),
    () => ({ ...progress }),
  );
}

/** The same, whoever counts the attempts and tells that the worker lives. */
export async function carryOutDelivery(
  deps: ActivityDeps,
  input: DeliverBatchInput,
  attempt: Attempt,
): Promise<DeliverBatchResult> {
  const { stop, activityAttempt } = attempt;
  const { notificationId, seq: batch, provider } = input;
  const names = { notificationId, batch, provider, activityAttempt };
  const { giveUp, release } = startGrace(stop, deps.config.shutdownGraceMs);
  try {
    const notification = await retryDatabase(() => getNotificationOfAnyApp(deps.db, notificationId), stop);
    const call = { ...attempt, deps, input, notification, names, giveUp };
    return await carryOut(call, await send(call));
  } finally {
    release();
  }
}

/** Up to the reason why the call ends, which is still to be carried out. */
async function send(call: DeliverCall): Promise<Ending> {
  const { deps, input, notification, activityAttempt, stop } = call;
  const { notificationId, seq } = input;
  if (notification.state !== 'sending') return { status: 'stopped', reason: notification.state };
  if (activityAttempt >= maxActivityAttempts) {
    const detail = `Batch ${seq} failed ${activityAttempt - 1} times; its last error is in Temporal's UI.`;
    return halted({ reason: 'poison_batch', detail });
  }
  try {
    await retryDatabase(() => rehearseRecording(deps.db, notificationId, seq), stop);
  } catch (error) {
    return haltedForBooks(error, seq);
  }
  for (;;) {
    const lease = await retryDatabase(() => deps.providers.lease(notification.appId, input.provider), stop);
    if ('fault' in lease) return halted({ reason: 'credentials', detail: lease.fault });
    try {
      const ending = await sendBy(lease, { ...call, stop: AbortSignal.any([stop, lease.replaced]) });
      if (ending.halt !== undefined) return { ...ending, halt: await blame(deps.db, lease, ending.halt) };
      if (ending.status !== 'waiting' || !lease.replaced.aborted || stop.aborted) return ending;
    } finally {
      lease.release();
    }
  }
}

function sendBy({ provider }: ProviderLease, call: DeliverCall): Promise<Ending> | Ending {
  const clock = new DatabaseClock();
  const prepared = prepare(provider, call.notification, clock);
  if (prepared instanceof PayloadError) {
    return halted({ reason: 'payload', detail: `${prepared.field}: ${prepared.message}` });
  }
  return sendPrepared(call, { provider, prepared, clock });
}

function prepare(
  provider: PushProvider,
  { id: notificationId, message, expiresAt }: Notification,
  clock: DatabaseClock,
): PreparedMessage | PayloadError {
  try {
    return provider.prepare({ notificationId, message, ...(expiresAt && { expiresAt }) }, clock.nowMs);
  } catch (error) {
    if (error instanceof PayloadError) return error;
    throw error;
  }
}

/** One run or more: before a halt on suspicion the batch is claimed again, and devices elsewhere in the audience come first. */
async function sendPrepared(
  { deps, input, notification, names, progress, stop, giveUp }: DeliverCall,
  { provider, prepared, clock }: { provider: PushProvider; prepared: PreparedMessage; clock: DatabaseClock },
): Promise<Ending> {
  const { appId, launchedAt, expiresAt, inDoubtPolicy } = notification;
  const launch = { appId, launchedAt: launchedAt! };
  const app = await retryDatabase(() => appNameOf(deps.db, appId), stop);
  const content = { prepared, expiresAt, inDoubtPolicy };
  for (let elsewhere = { devices: 0, suspects: 0 }; ; ) {
    const claim = await retryDatabase(() => claimToSend(deps.db, input.notificationId, input.seq), stop);
    if (claim === undefined) return finished;
    const pending = await retryDatabase(() => PendingDevices.load({ ...deps, launch, claim, clock, content }), stop);
    const { devices, suspects } = elsewhere;
    if (devices > 0) await retryDatabase(() => pending.askElsewhere(deps.db, devices), stop);
    const sender = new Sender({
      ...deps,
      ...{ appId, app, provider, pending, progress, stop, giveUp, acceptedBefore: claim.accepted },
      books: new BatchBooks(deps, appId, claim),
      slot: new BatchSlot({ slots: deps.slots, claim, stop }),
      suspectsBefore: suspects,
      random: deps.random ?? Math.random,
    });
    const end = await sender.run();
    if (sender.inFlight > 0) deps.log.warn({ ...names, inFlight: sender.inFlight }, 'left answers behind: in doubt');
    if (end.kind === 'askElsewhere') {
      elsewhere = end;
      continue;
    }
    if (end.kind === 'failed') deps.log.error({ ...names, err: end.error }, 'batch failed');
    const isAnyUntried = end.kind !== 'partAtFault' || (await hasUntriedDevices(deps.db, input.notificationId));
    const ending = endingOf(end, { ...sender.left, claim, isAnyUntried });
    const cause = waitCauseOf(end);
    if (cause !== undefined && ending.waitMs !== undefined) countWait(provider.name, cause, ending.waitMs);
    if (end.kind === 'stopped') deps.log.info({ ...names, reason: end.reason }, 'batch stopped');
    if (end.kind === 'partAtFault' && ending.halt === undefined) {
      deps.log.warn({ ...names, devices: ending.deferred, ...end.halt }, 'a platform waits');
    }
    return ending;
  }
}

async function carryOut({ deps, notification, names }: DeliverCall, ending: Ending): Promise<DeliverBatchResult> {
  const { status, reason, waitMs = 0, deferred = 0, host, settle, halt } = ending;
  if (settle !== undefined) {
    const { claim, outcome } = settle;
    const app = await appNameOf(deps.db, notification.appId);
    const groups = await transactionWithClient(deps.pool, (trx, client) => settleBatch(trx, client, claim, outcome));
    for (const group of groups) countRecorded({ app, provider: claim.provider }, group, group.positions.length);
  }
  if (halt !== undefined && (await haltNotificationOfAnyApp(deps.db, notification, halt))) {
    halts.inc({ of: 'notification', reason: halt.reason });
    deps.log.error({ ...names, ...halt }, 'notification halted');
  }
  const { state, books, unreachable } = await getSummaryOfAnyApp(deps.db, notification.id);
  return {
    ...{ status, waitMs, deferred, reason, books },
    // The send was resumed since the fault was seen: the batch goes on, and finds out whether it is still there.
    ...(halt !== undefined && state === 'sending' && { status: 'deferred' as const, reason: 'resumed meanwhile' }),
    ...(host !== undefined && { host }),
    ...(unreachable.length > 0 && { unreachable: unreachable.map(toHostInTrouble) }),
  };
}
