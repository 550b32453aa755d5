import type { ActivityDeps } from './activities.ts';
import { type BatchPage, nextBatches } from './next-batches.ts';
import { readNotification, type WorkflowView } from './read-notification.ts';

export interface FirstLook extends WorkflowView {
  /** Of a notification that is to be sent; without batches where one page of the audience is not enough to tell. */
  firstPage?: BatchPage;
}

/**
 * How a run of the workflow begins: the state, and with it the first batches if it says to send. A small send is then on its way
 * after one activity, where each takes a tenth of a second on a busy machine. At most one page is planned: a person who looks at
 * the workflow sees the state soon.
 */
export async function firstLook(deps: ActivityDeps, id: string, stop: AbortSignal): Promise<FirstLook | undefined> {
  const view = await readNotification(deps, id);
  if (view?.state !== 'sending') return view;
  return { ...view, firstPage: await nextBatches(deps, { notificationId: id, afterSeq: 0 }, stop, 1) };
}
