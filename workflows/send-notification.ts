import {
  allHandlersFinished,
  CancellationScope,
  condition,
  continueAsNew,
  defineSignal,
  isCancellation,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { FirstLook, WorkflowView } from '../activities/activities.ts';
import { exhausted } from '../domain/exhausted.ts';
import { wakeSignalName } from '../domain/ids.ts';
import type { Waits } from './batch-queue.ts';
import { describeNotification, shorten, whatItWaitsFor } from './details.ts';
import {
  beginScheduled,
  cancelByOperator,
  firstLook,
  lookAndSend,
  readNotification,
  settleCancelled,
} from './notification-activities.ts';
import { showInList, showLastState } from './search-attributes.ts';
import { SendPass, type Wake } from './send-pass.ts';

export interface SendNotificationInput {
  notificationId: string;
  /** What the run before knew, where one continued as new. */
  waits?: Waits | undefined;
}

/** What became of it, as Temporal's UI shows it; undefined: the notification was deleted. */
export type SendNotificationResult = Pick<WorkflowView, 'state' | 'title' | 'books'> | undefined;

const wakeSignal = defineSignal(wakeSignalName);
/** Nothing depends on it: a timer says in Temporal's timeline what a send waits for, a signal ends the wait. */
const idleLook = '30d';

/** Reads a notification, and may send to some of it. */
type Look = (notificationId: string, isFirst: boolean) => Promise<FirstLook | undefined>;

/**
 * One notification from launch to closed books. PostgreSQL says what state it is in; this workflow reads that, does what the
 * state asks for, and reads again. A signal wakes it to look; a lost signal costs time, never a device.
 *
 * A send to few devices ends with the first look: one workflow task, no activity, no child.
 */
export function notificationWorkflow(input: SendNotificationInput): Promise<SendNotificationResult> {
  return followState(input, async (notificationId) => {
    try {
      return await lookAndSend(notificationId);
    } catch (error) {
      if (isCancellation(error)) throw error;
      return firstLook(notificationId);
    }
  });
}

/** The same for what was launched before a look could send. To be deleted when none of these is open any more. */
export function sendNotificationWorkflow(input: SendNotificationInput): Promise<SendNotificationResult> {
  return followState(input, (notificationId, isFirst) => (isFirst ? firstLook : readNotification)(notificationId));
}

async function followState(input: SendNotificationInput, look: Look): Promise<SendNotificationResult> {
  const { notificationId } = input;
  let { waits } = input;
  const wake: Wake = { isPending: false };
  setHandler(wakeSignal, () => {
    wake.isPending = true;
  });
  try {
    for (let isFirst = true; ; isFirst = false) {
      wake.isPending = false;
      const view = await look(notificationId, isFirst);
      if (view) {
        setCurrentDetails(describeNotification(view));
        showInList(view);
      }
      if (view === undefined || view.isFinished || view.state === 'draft' || view.state === 'completed') {
        // A signal that came during the read is seen here: the server refuses to close a workflow behind its back.
        if (wake.isPending) continue;
        return view && { state: view.state, title: view.title, books: view.books };
      }
      let carriedOver: Waits | undefined;
      switch (view.state) {
        case 'scheduled':
          if (view.msUntilScheduled > 0) {
            await condition(() => wake.isPending, view.msUntilScheduled, { summary: `begins at ${view.scheduledAt}` });
          } else await beginScheduled(notificationId);
          break;
        case 'sending':
          carriedOver = await new SendPass(notificationId, view, waits, wake).run();
          waits = undefined;
          break;
        case 'paused':
        case 'halted':
          await condition(() => wake.isPending, idleLook, { summary: shorten(whatItWaitsFor(view)) });
          break;
        case 'cancelled':
          await settleCancelled(notificationId);
          break;
        default:
          // Fails this task, not the workflow: Temporal tries it again until a worker takes it that knows the state.
          exhausted(view.state);
      }
      if (carriedOver || workflowInfo().continueAsNewSuggested) {
        await condition(allHandlersFinished);
        await continueAsNew<typeof sendNotificationWorkflow>({ notificationId, waits: carriedOver });
      }
    }
  } catch (error) {
    if (!isCancellation(error)) throw error;
    // Cancelled in Temporal's own UI: the same as a cancel by the API.
    await CancellationScope.nonCancellable(async () => {
      await cancelByOperator(notificationId);
      await settleCancelled(notificationId);
    });
    showLastState('cancelled');
    throw error;
  }
}
