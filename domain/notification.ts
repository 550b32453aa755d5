import type { Audience } from './audience.ts';
import type { ProviderName } from './device.ts';
import type { Message } from './message.ts';
import type { HaltReason, InDoubtPolicy, NotificationState } from './notification-state.ts';
import type { Outcome, OutcomeCounts } from './outcome.ts';

/** A notification without its large parts, with its books as they stood when it was read. */
export interface NotificationSummary {
  /** UUID v7. */
  id: string;
  appId: number;
  state: NotificationState;
  /** Grows with every change that the workflow must look at. */
  version: number;
  /** For people: shown in listings and in Temporal's UI. */
  title: string | null;
  inDoubtPolicy: InDoubtPolicy;
  /** Devices per second over all workers; null: no limit of its own. */
  ratePerSecond: number | null;
  scheduledAt: Date | null;
  launchedAt: Date | null;
  /** Launch plus the message's ttl; null without a ttl, or with a ttl of 0 (one attempt). */
  expiresAt: Date | null;
  /** Set once the books are closed: every device of the audience has its outcome. */
  finishedAt: Date | null;
  /** When its books were uploaded to object storage; null: they were not. */
  exportedAt: Date | null;
  halt: { reason: HaltReason; detail: string } | null;
  /** While the notification is sending: unreachable hosts of providers that it still has devices for. */
  unreachable: UnreachableHost[];
  books: Books;
  /** Counted from the groups when the books closed; null until then. */
  totals: Totals | null;
  createdAt: Date;
  updatedAt: Date;
}

/** A provider's host that cannot be reached. */
export interface UnreachableHost {
  provider: ProviderName;
  host: string;
  since: Date;
  lastTriedAt: Date;
  /** The error of the last attempt; no secret. */
  error: string;
}

/** The whole notification, with its audience, which may list tens of thousands of external ids. */
export interface Notification extends NotificationSummary {
  message: Message;
  audience: Audience;
  /** Null when the audience lists no ids. Counted when the audience was last written or uploaded, and at the launch. */
  listed: Listed | null;
}

/** Counts by the part of the audience that lists the ids. */
export type Listed = Partial<Record<'externalIds' | 'userIds' | 'uploaded', ListedCounts>>;

export interface ListedCounts {
  /** Ids, each counted once; of an upload, the lines. */
  listed: number;
  /** Ids that have a device. */
  matched: number;
  /** Ids that have a device to which messages can be sent. */
  live: number;
}

/**
 * `audience` = sum of `outcomes` + `pending`, at every moment. While planning goes on (`isPlanned` false) the audience still
 * grows.
 */
export interface Books {
  audience: number;
  outcomes: OutcomeCounts;
  pending: number;
  isPlanned: boolean;
  batches: number;
  batchesFinished: number;
}

export interface Totals {
  outcomes: OutcomeCounts;
  /** Devices by outcome and reason. */
  reasons: Partial<Record<Outcome, Record<string, number>>>;
  /** Devices that may have got the message more than once. */
  inDoubt: number;
}
