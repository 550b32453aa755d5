import type { Outcome } from './outcome.ts';

/** How a device ended, as answers and files tell it. */
export interface DeliveryLine {
  external_id: string | null;
  outcome: Outcome;
  reason: string | null;
  http_status: number | null;
  provider_message_id: string | null;
  attempts: number;
  in_doubt: boolean;
  /** ISO 8601, UTC. */
  finished_at: string;
}

/** One line for each device: in answers of the API, and in the files of books that are uploaded. */
export function toDeliveryLine(ended: {
  externalId: string | null;
  outcome: Outcome;
  reason: string | null;
  httpStatus: number | null;
  providerMessageId: string | null;
  attempts: number;
  inDoubt: boolean;
  finishedAt: Date;
}): DeliveryLine {
  return {
    external_id: ended.externalId,
    outcome: ended.outcome,
    reason: ended.reason,
    http_status: ended.httpStatus,
    provider_message_id: ended.providerMessageId,
    attempts: ended.attempts,
    in_doubt: ended.inDoubt,
    finished_at: ended.finishedAt.toISOString(),
  };
}
