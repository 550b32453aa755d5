import { Context } from '@temporalio/activity';
import type { Kysely } from 'kysely';
import type pg from 'pg';
import type { Database } from '../db/schema.ts';
import type { AppDeletionStep, DeleteAppInput } from '../domain/app-deletion.ts';
import type { ExportBooksInput, ExportBooksResult } from '../domain/book-export.ts';
import type { WorkerConfig } from '../domain/config.ts';
import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import type { KeepLaneInput, KeepLaneResult } from '../domain/lane.ts';
import type { Logger } from '../domain/logger.ts';
import type { WebhookStep, WebhookWorkflowInput } from '../domain/webhook.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { ProviderSource } from './app-providers.ts';
import type { BookStore } from './book-store.ts';
import { cancelByOperator } from './cancel-by-operator.ts';
import { closeBooks } from './close-books.ts';
import { deleteAppStep } from './delete-app.ts';
import { deliverBatch } from './deliver-batch.ts';
import type { OverloadWatch } from './delivery/overload-watch.ts';
import type { ProviderHosts } from './delivery/provider-hosts.ts';
import { exportBooks } from './export-books.ts';
import { type FirstLook, firstLook } from './first-look.ts';
import { keepLane } from './keep-lane.ts';
import type { LaneBell } from './lane-bell.ts';
import { type BatchPage, type NextBatchesInput, nextBatches } from './next-batches.ts';
import { beginScheduled, readNotification, type WorkflowView } from './read-notification.ts';
import type { SearchAttributes } from './search-attributes.ts';
import type { SendingSlots } from './sending-slots.ts';
import { settleCancelled } from './settle-cancelled.ts';
import { SmallSends } from './small-send.ts';
import { unlessGone } from './unless-gone.ts';
import { deliverWebhooks } from './webhooks/deliver-webhooks.ts';
import type { WebhookSender } from './webhooks/webhook-sender.ts';
import { whileBeating } from './while-beating.ts';

export type { BatchPage, FirstLook, WorkflowView };

/** What activities need of the world; the entry makes it once per process. */
export interface ActivityDeps {
  db: Kysely<Database>;
  /** The pool under `db`, for prepared statements. */
  pool: pg.Pool;
  providers: ProviderSource;
  overload: OverloadWatch;
  providerHosts: ProviderHosts;
  /** Of the queue that the activities are called from. */
  slots: SendingSlots;
  bell: LaneBell;
  /** Where finished books are uploaded to; undefined: nowhere. */
  bookStore?: BookStore | undefined;
  /** Default: none. */
  tracing?: Tracing | undefined;
  /** Default: Temporal has none. */
  search?: Pick<SearchAttributes, 'isOn'>;
  /** After so many milliseconds without a message a lane is left; default five minutes. */
  laneIdleMs?: number;
  /** Only on the queue of webhooks. */
  webhooks?: WebhookSender;
  /** What comes so soon after the last event is delivered without another activity, in milliseconds; default five seconds. */
  webhookLingerMs?: number;
  config: WorkerConfig;
  log: Logger;
  /** 0 up to 1; default `Math.random`. */
  random?: () => number;
}

/** Every activity takes and returns ids and counts only. Workflows see this type alone. */
export interface Activities {
  /** A local activity: its worker runs it within a workflow task. */
  lookAndSend(notificationId: string): Promise<FirstLook | undefined>;
  firstLook(notificationId: string): Promise<FirstLook | undefined>;
  readNotification(notificationId: string): Promise<WorkflowView | undefined>;
  beginScheduled(notificationId: string): Promise<void>;
  nextBatches(input: NextBatchesInput): Promise<BatchPage>;
  deliverBatch(input: DeliverBatchInput): Promise<DeliverBatchResult>;
  settleCancelled(notificationId: string): Promise<void>;
  closeBooks(notificationId: string): Promise<{ isClosed: boolean }>;
  cancelByOperator(notificationId: string): Promise<void>;
  deleteAppStep(input: DeleteAppInput): Promise<AppDeletionStep>;
  exportBooks(input: ExportBooksInput): Promise<ExportBooksResult>;
  keepLane(input: KeepLaneInput): Promise<KeepLaneResult>;
  deliverWebhooks(input: WebhookWorkflowInput): Promise<WebhookStep>;
}

export function createActivities(deps: ActivityDeps): Activities {
  const smallSends = new SmallSends();
  return {
    lookAndSend: (notificationId) => smallSends.look(deps, notificationId, Context.current().cancellationSignal),
    firstLook: (notificationId) => whileBeating((stop) => firstLook(deps, notificationId, stop)),
    readNotification: (notificationId) => readNotification(deps, notificationId),
    beginScheduled: (notificationId) => beginScheduled(deps, notificationId),
    nextBatches: (input) => unlessGone(whileBeating((stop) => nextBatches(deps, input, stop))),
    deliverBatch: (input) => unlessGone(deliverBatch(deps, input)),
    settleCancelled: (notificationId) =>
      unlessGone(whileBeating((stop) => settleCancelled(deps, notificationId, stop))),
    closeBooks: (notificationId) => unlessGone(whileBeating(() => closeBooks(deps, notificationId))),
    cancelByOperator: (notificationId) => unlessGone(cancelByOperator(deps, notificationId)),
    deleteAppStep: (input) => whileBeating((stop) => deleteAppStep(deps, input, stop)),
    exportBooks: (input) => {
      const progress = { lines: 0 };
      return unlessGone(
        whileBeating(
          (stop) => exportBooks(deps, input, stop, progress),
          () => progress,
        ),
      );
    },
    keepLane: (input) => keepLane(deps, input),
    deliverWebhooks: (input) => whileBeating((stop) => deliverWebhooks(deps, input, stop)),
  };
}
