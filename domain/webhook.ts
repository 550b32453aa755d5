import type { JsonObject, JsonValue } from './json.ts';
import type { NotificationState } from './notification-state.ts';
import type { Outcome } from './outcome.ts';

/** What a webhook can be told of. A type that comes later is not told to those that were made before. */
export const webhookTypes = [
  'notification.state_changed',
  'notification.finished',
  'messages.halted',
  'messages.resumed',
  'messages.finished',
  'devices.retired',
  'devices.restored',
  'events.received',
  'webhook.disabled',
] as const;
export type WebhookType = (typeof webhookTypes)[number];

/** Told to one webhook alone, whatever its types are: the one that its subject names. */
export const webhookTestType = 'webhook.test';
/** Told to nobody: the workflow of the webhook that the subject names is to look, and ends. */
export const webhookDeletedType = 'webhook.deleted';

/** Of these many come at once, in no order: the name of the list in their data. */
const listNames: Record<string, string> = {
  'messages.finished': 'messages',
  'devices.retired': 'devices',
  'devices.restored': 'devices',
  'events.received': 'events',
} satisfies Partial<Record<WebhookType, string>>;

/** One event has so many items at most, … */
const maxItems = 200;
/** … and about so many characters. */
const maxLength = 256 * 1024;

/** Which events of its types a webhook wants; what is left out lets all pass. */
export interface WebhookFilter {
  /** Of `messages.finished`. */
  outcomes?: Outcome[] | undefined;
  /** Of the same. */
  reasons?: string[] | undefined;
  /** Of `notification.state_changed`: the state that it is in now. */
  states?: NotificationState[] | undefined;
}

/** - `enabled` until it is disabled by its app (`by_caller`), by its own word (`gone`: 410), or by us (`failing`: for days). */
export const webhookStates = ['enabled', 'disabled'] as const;
export type DisabledReason = 'by_caller' | 'gone' | 'failing';

/**
 * - `pending`: it waits for its turn, an attempt, or another try. A replay brings it back here.
 * - `delivered`: answered with 2xx.
 * - `failed`: the attempts are spent.
 */
export const webhookDeliveryStates = ['pending', 'delivered', 'failed'] as const;
export type WebhookDeliveryState = (typeof webhookDeliveryStates)[number];

/** A row of the outbox. */
export interface FedChange {
  appId: number;
  type: string;
  /** What the order is kept for; null: no order. */
  subject: string | null;
  data: JsonObject;
  at: Date;
}

/** As far as it decides what a webhook is told. */
export interface WebhookWish {
  id: string;
  appId: number;
  types: string[];
  filter: WebhookFilter;
}

export interface NewWebhookEvent extends FedChange {
  webhookIds: string[];
}

/**
 * Makes events of what was fed, in its order, for the webhooks that want them. Items of one type are put together, however many changes
 * they came by: apart for each filter.
 */
export function formEvents(changes: FedChange[], webhooks: WebhookWish[]): NewWebhookEvent[] {
  const events: NewWebhookEvent[] = [];
  const open = new Map<string, { event: NewWebhookEvent; items: JsonValue[]; length: number }>();
  for (const change of changes) {
    const wanting = webhooks.filter((webhook) => wants(webhook, change));
    const listName = listNames[change.type];
    if (listName === undefined) {
      const webhookIds = wanting.filter(({ filter }) => passesStates(filter, change)).map(({ id }) => id);
      if (webhookIds.length > 0) events.push({ ...change, webhookIds });
      continue;
    }
    const items = (change.data[listName] ?? []) as JsonObject[];
    for (const [filterKey, group] of groupByFilter(wanting, change.type)) {
      const key = `${change.appId} ${change.type} ${filterKey}`;
      for (const item of items) {
        if (change.type === 'messages.finished' && !passesOutcome(group[0]!.filter, item)) continue;
        const { length } = JSON.stringify(item);
        let batch = open.get(key);
        if (batch === undefined || batch.items.length >= maxItems || batch.length + length > maxLength) {
          const list: JsonValue[] = [];
          const webhookIds = group.map(({ id }) => id);
          batch = {
            event: { ...change, subject: null, data: { [listName]: list }, webhookIds },
            items: list,
            length: 0,
          };
          open.set(key, batch);
          events.push(batch.event);
        }
        batch.items.push(item);
        batch.length += length;
        batch.event.at = change.at;
      }
    }
  }
  return events;
}

function wants(webhook: WebhookWish, { appId, type, subject }: FedChange): boolean {
  if (webhook.appId !== appId) return false;
  return type === webhookTestType ? webhook.id === subject : webhook.types.includes(type);
}

function groupByFilter(webhooks: WebhookWish[], type: string): Map<string, WebhookWish[]> {
  return Map.groupBy(webhooks, ({ filter: { outcomes, reasons } }) =>
    type === 'messages.finished' ? JSON.stringify([outcomes, reasons]) : '',
  );
}

function passesOutcome({ outcomes, reasons }: WebhookFilter, { outcome, reason }: JsonObject): boolean {
  return (
    (outcomes === undefined || outcomes.includes(outcome as Outcome)) &&
    (reasons === undefined || reasons.includes(reason as string))
  );
}

function passesStates({ states }: WebhookFilter, { type, data }: FedChange): boolean {
  return type !== 'notification.state_changed' || states === undefined || states.includes(data.to as NotificationState);
}

/** Of `webhookWorkflow`. */
export interface WebhookWorkflowInput {
  webhookId: string;
  /** Of its URL, for people. */
  host: string;
}

/** How one call of `deliverWebhooks` ended. */
export interface WebhookStep {
  /**
   * `idle`: nothing is pending; `waiting`: for another try; `stopped`: the worker, or its time, ended; `disabled`, `gone`: nothing is to be
   * delivered.
   */
  kind: 'idle' | 'waiting' | 'stopped' | 'disabled' | 'gone';
  /** Until there is something to do, in milliseconds. */
  waitMs: number;
  /** At most 10 000 are counted. */
  pending: number;
  failingSince?: string | undefined;
  lastError?: string | undefined;
}
