import type { ColumnType, Generated } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import type { AppDeletion } from '../domain/app.ts';
import type { Audience } from '../domain/audience.ts';
import type { CredentialKind } from '../domain/credential.ts';
import type { ApnsEnvironment, Platform, ProviderName } from '../domain/device.ts';
import type { Recipients, SkippedRecipient } from '../domain/direct-message.ts';
import type { JsonObject } from '../domain/json.ts';
import type { Message } from '../domain/message.ts';
import type { Listed, Totals } from '../domain/notification.ts';
import type { HaltReason, InDoubtPolicy, NotificationState } from '../domain/notification-state.ts';
import type { Outcome } from '../domain/outcome.ts';
import type { Scope } from '../domain/scopes.ts';
import type { DisabledReason, WebhookDeliveryState, WebhookFilter } from '../domain/webhook.ts';

/**
 * Row types, as `migrations/` makes the tables; `token_evidence` is known to its function alone. Rows stay inside `db/`; each table's
 * file maps them to domain values.
 */
export interface Database {
  apps: AppRow;
  credentials: CredentialRow;
  provider_tokens: ProviderTokenRow;
  api_keys: ApiKeyRow;
  audit_entries: AuditEntryRow;
  devices: DeviceRow;
  notifications: NotificationRow;
  audience_lists: AudienceListRow;
  audience_members: AudienceMemberRow;
  batches: BatchRow;
  deferrals: DeferralRow;
  delivery_groups: DeliveryGroupRow;
  deliveries: DeliveryRow;
  rate_limits: RateLimitRow;
  provider_hosts: ProviderHostRow;
  token_suspects: TokenSuspectRow;
  token_departures: TokenDepartureRow;
  lanes: LaneRow;
  messages: MessageRow;
  message_entries: MessageEntryRow;
  message_keys: MessageKeyRow;
  message_counts: MessageCountRow;
  book_stores: BookStoreRow;
  webhooks: WebhookRow;
  webhook_feed: WebhookFeedRow;
  webhook_events: WebhookEventRow;
  webhook_deliveries: WebhookDeliveryRow;
  event_devices: EventDevicesRow;
  event_counts: EventCountRow;
  event_types: EventTypeRow;
}

type Json<T> = ColumnType<T, string, string>;
type Default<T> = Generated<T>;

interface AppRow {
  id: Generated<number>;
  name: string;
  /** The bundle id. */
  apns_topic: string | null;
  /** Further bundle ids that a message may name. */
  apns_topics: Default<string[]>;
  /** Of devices that name none. */
  apns_environment: Default<ApnsEnvironment>;
  /** Null: that of the service account. */
  fcm_project_id: string | null;
  default_ttl_seconds: number | null;
  default_in_doubt_policy: Default<InDoubtPolicy>;
  /** Registrations of further devices are refused. */
  max_devices: number | null;
  /** Grows with every change that workers must follow: of credentials, topic, environment, project. */
  version: Default<number>;
  created_at: Default<Date>;
  updated_at: Default<Date>;
  /** The app is being deleted: who asked for it and how far it is. */
  deletion: Json<AppDeletion> | null;
}

interface CredentialRow {
  id: string;
  app_id: number;
  kind: CredentialKind;
  /** What anybody may know of it. */
  details: Json<JsonObject>;
  /** JWE of what is secret, see `master-keys.ts`. */
  secret_jwe: string;
  /** Tells two credentials apart and nothing more. */
  fingerprint: string;
  /** Certificates alone expire. */
  expires_at: Date | null;
  /** From then on it is used; null: its proof by the provider is awaited. */
  activated_at: Date | null;
  /** To the minute. */
  last_used_at: Date | null;
  last_refused_at: Date | null;
  /** What a send or a lane was halted for: a sentence. */
  last_refusal: string | null;
  created_at: Default<Date>;
  revoked_at: Date | null;
}

interface ProviderTokenRow {
  fingerprint: string;
  /** JWE of the token, by a key that follows from the credential. */
  token_jwe: string;
  issued_at: Date;
  updated_at: Default<Date>;
}

interface ApiKeyRow {
  id: string;
  /** Null: an administrator's. */
  app_id: number | null;
  name: string;
  /** SHA-256 of the key: keys are 256 random bits, so no slow hash is needed. */
  key_hash: Uint8Array;
  scopes: Scope[];
  /** Null: as the settings say. */
  requests_per_second: number | null;
  expires_at: Date | null;
  created_at: Default<Date>;
  last_used_at: Date | null;
  revoked_at: Date | null;
}

/** Written by `record_audit_entry` alone. */
interface AuditEntryRow {
  /** UUID v7: its time. */
  id: string;
  app_id: number | null;
  /** As it was called then. */
  app_name: string | null;
  actor_kind: Actor['kind'];
  actor: string;
  request_id: string | null;
  address: string | null;
  action: string;
  target_kind: string;
  target_id: string;
  changes: Json<JsonObject>;
}

export interface DeviceRow {
  id: Generated<number>;
  app_id: number;
  external_id: string;
  user_id: string | null;
  provider: ProviderName;
  platform: Platform;
  /** Kept on a retired row as history; live only while `retired_at` is null. */
  device_token: string | null;
  apns_environment: ApnsEnvironment | null;
  properties: Json<JsonObject>;
  locale: string | null;
  time_zone: string | null;
  /** 1 to 10 000, random, for gradual roll-out and hold-out. */
  bucket: Default<number>;
  /** The last time that the app registered this token. */
  registered_at: Default<Date>;
  retired_at: Date | null;
  /** The provider's reason, or `token_moved`: another device registered the token. */
  retired_reason: string | null;
  created_at: Default<Date>;
  updated_at: Default<Date>;
  /** The last import that stored it. */
  import_id: number | null;
}

/** A list of devices that was uploaded for a draft. Its notification names the list that counts; others are unfinished or old. */
interface AudienceListRow {
  id: string;
  notification_id: string;
  created_at: Default<Date>;
}

/** A device of an uploaded list; deleted with the page of the plan that read it. */
interface AudienceMemberRow {
  list_id: string;
  device_id: number;
  /** Set: listed by its user, so that it counts only as long as it is that user's. */
  user_id: string | null;
}

export interface NotificationRow {
  id: string;
  app_id: number;
  state: NotificationState;
  title: string | null;
  message: Json<Message>;
  audience: Json<Audience>;
  /** How many of the ids that the audience lists were found, when it was last written, uploaded or launched. */
  listed: Json<Listed> | null;
  /** The uploaded list that counts. */
  audience_list_id: string | null;
  in_doubt_policy: InDoubtPolicy;
  rate_per_second: number | null;
  idempotency_key: string | null;
  request_hash: string | null;
  /** The highest device id at launch: later registrations are not in the audience. */
  device_ceiling: number | null;
  /** Devices up to this id are planned. */
  plan_cursor: Default<number>;
  planned_at: Date | null;
  batch_count: Default<number>;
  audience_size: Default<number>;
  scheduled_at: Date | null;
  launched_at: Date | null;
  expires_at: Date | null;
  finished_at: Date | null;
  /** Null: the books were not uploaded. */
  exported_at: Date | null;
  halt_reason: HaltReason | null;
  halt_detail: string | null;
  totals: Json<Totals> | null;
  /** Grows with every change that the workflow must look at. */
  version: Default<number>;
  /** The version that the workflow last read; behind `version`, the reconciler wakes it. */
  seen_version: Default<number>;
  created_at: Default<Date>;
  updated_at: Default<Date>;
}

/** A store that finished books are uploaded to. */
interface BookStoreRow {
  /** Its address. */
  name: string;
  /** Sends that ended before are not uploaded by themselves. */
  set_at: Default<Date>;
}

type BatchCounts = { [O in Outcome]: Default<number> };

interface BatchRow extends BatchCounts {
  notification_id: string;
  seq: number;
  provider: ProviderName;
  first_device_id: number;
  /** The batch's devices, ascending, each as its id less that of the first. */
  device_offsets: number[];
  size: number;
  /** A `0` or `1` for each device: whether it has its outcome. Set by the trigger of `delivery_groups`. */
  recorded: string;
  /** Grows with every claim; a worker that holds an older one is a zombie and may write nothing. */
  fence: Default<number>;
  /** Positions below it may have been handed to the provider. */
  horizon: Default<number>;
  finished_at: Date | null;
}

interface DeferralRow {
  notification_id: string;
  device_id: number;
  batch_seq: number;
  not_before: Date;
  /** Attempts so far that the provider answered or may have processed. */
  attempts: number;
  /** How many of them ended through no fault of the device. */
  excused: Default<number>;
  /** How many of them ended without an answer. */
  doubts: Default<number>;
  refused_at: Date | null;
  /** True while a window that holds this device is reserved: after a crash the device is in doubt. */
  dispatched: Default<boolean>;
  reason: string;
  http_status: number | null;
}

/** Devices of a batch that ended alike and were recorded together; inserting it is what records their outcome. */
interface DeliveryGroupRow {
  notification_id: string;
  finished_at: Default<Date>;
  batch_seq: number;
  first_position: number;
  outcome: Outcome;
  http_status: number | null;
  attempts: number;
  in_doubt: boolean;
  reason: string | null;
  /** A `0` or `1` for each position from the first to the last of them. */
  positions: string;
  /** In order of position, a space between them, nothing for none. */
  provider_message_ids: string | null;
}

/** A view of `delivery_groups`: a line for each device. */
interface DeliveryRow {
  readonly notification_id: string;
  readonly batch_seq: number;
  readonly position: number;
  readonly device_id: number;
  readonly outcome: Outcome;
  readonly reason: string | null;
  readonly http_status: number | null;
  readonly provider_message_id: string | null;
  readonly attempts: number;
  readonly in_doubt: boolean;
  readonly finished_at: Date;
}

interface RateLimitRow {
  /** `notification:<id>` or `app:<id>:<provider>`. */
  scope: string;
  rate_per_second: number | null;
  next_at: Default<Date>;
  /** Set by hand alone: what a provider asks for is kept by host. */
  blocked_until: Default<Date>;
}

/** What is wrong with a host of a provider, for one app and credential; no row: nothing ever was. */
interface ProviderHostRow {
  app_id: number;
  provider: ProviderName;
  host: string;
  /** Names the credential, and is none. */
  credential: string;
  /** The provider asked for patience until then. */
  blocked_until: Default<Date>;
  /** Until its next answer. */
  unreachable_since: Date | null;
  /** While it cannot be reached: not before. */
  next_try_at: Default<Date>;
  last_tried_at: Date | null;
  last_error: string | null;
}

/** A device whose token a configuration made the provider call bad. */
interface TokenSuspectRow {
  app_id: number;
  configuration: string;
  device_id: number;
  suspected_at: Default<Date>;
}

/** A token that left a device; written by a trigger. */
interface TokenDepartureRow {
  device_token: string;
  app_id: number;
  device_id: number;
  departed_at: Default<Date>;
}

/** Sends the messages of an app to some of the devices of a provider, in order. Where its next entry stands is in `lane_ends`. */
interface LaneRow {
  id: Generated<number>;
  app_id: number;
  provider: ProviderName;
  /** From 0: a device is in the lane of its id modulo their count, a power of two. */
  number: number;
  /** As of a batch. */
  fence: Default<number>;
  /** Positions below it may have been handed to the provider. */
  horizon: Default<number>;
  /** Positions below it have their outcome. */
  settled: Default<number>;
  /** Set: nothing is sent before the lane that its devices were in has sent what stands before this position. */
  opens_after: number | null;
  /** Grows where the lane must be read again: entries were cancelled, a halt was ended. */
  changes: Default<number>;
  halt_reason: string | null;
  halt_detail: string | null;
  halted_at: Date | null;
  /** The last time that its worker showed that it sends. */
  seen_at: Default<Date>;
}

/** A message to one person or a few, as it was accepted; it never changes. */
interface MessageRow {
  id: string;
  app_id: number;
  message: Json<Message>;
  recipients: Json<Recipients & { skipped: SkippedRecipient[] }>;
  /** The devices that it goes to: each has an entry. */
  device_ids: number[];
  in_doubt_policy: InDoubtPolicy;
  expires_at: Date | null;
  created_at: Default<Date>;
}

/** A message for a device. A second outcome is refused by a trigger. */
interface MessageEntryRow {
  message_id: string;
  device_id: number;
  lane_id: number;
  position: number;
  expires_at: Date | null;
  /** Null: it was not deferred. */
  not_before: Date | null;
  refused_at: Date | null;
  finished_at: Date | null;
  attempts: Default<number>;
  /** How many of the attempts ended through no fault of the device. */
  excused: Default<number>;
  /** How many of them ended without an answer. */
  doubts: Default<number>;
  http_status: number | null;
  /** True while a window that holds this deferred entry is reserved. */
  dispatched: Default<boolean>;
  outcome: Outcome | null;
  reason: string | null;
  provider_message_id: string | null;
}

interface MessageKeyRow {
  app_id: number;
  idempotency_key: string;
  request_hash: string;
  message_id: string;
}

/** Devices by the UTC day of the message's id. */
interface MessageCountRow {
  app_id: number;
  /** `YYYY-MM-DD`; a plain select would read it as a local time. */
  day: ColumnType<never, string, string>;
  /** '': recipients without a device. */
  provider: ProviderName | '';
  lane_id: number;
  outcome: Outcome | 'entered';
  /** '': none. */
  reason: string;
  devices: number;
  in_doubt: Default<number>;
}

/** Which devices of a send told of a type: a bit for each position of a part of a batch (8 192), or for each device of a message. */
interface EventDevicesRow {
  app_id: number;
  /** The id of the notification or message. */
  send_id: string;
  /** 0: a message. */
  batch_seq: number;
  part: number;
  type: string;
  devices: string;
}

interface EventCountRow {
  app_id: number;
  send_id: string;
  /** '': the send has none. */
  variant: Default<string>;
  type: string;
  hour: Date;
  /** Each telling. */
  events: number;
  /** Those that told of it for the first time. */
  devices: number;
}

/** A type that is an app's own. */
interface EventTypeRow {
  app_id: number;
  type: string;
}

interface WebhookRow {
  id: string;
  app_id: number;
  url: string;
  types: string[];
  filter: Json<WebhookFilter>;
  /** JWE of the secret that signs, see `master-keys.ts`. */
  secret_jwe: string;
  /** Signs too, until `previous_until`. */
  previous_secret_jwe: string | null;
  previous_until: Date | null;
  disabled_at: Date | null;
  disabled_reason: DisabledReason | null;
  /** The first failure since it last took anything. */
  failing_since: Date | null;
  /** In a row. */
  failures: Default<number>;
  last_error: string | null;
  last_delivered_at: Date | null;
  /** It asked for patience, or is down: nothing is sent before. */
  blocked_until: Default<Date>;
  /** As of a batch: grows with every worker that takes it. */
  fence: Default<number>;
  /** Somebody delivers to it, or was told to, and said so to last until then. */
  busy_until: Default<Date>;
  created_at: Default<Date>;
  updated_at: Default<Date>;
}

/** The outbox; written by `feed_webhooks`, emptied by the collector. */
interface WebhookFeedRow {
  id: Generated<number>;
  app_id: number;
  type: string;
  subject: string | null;
  data: Json<JsonObject>;
  at: Default<Date>;
}

interface WebhookEventRow {
  /** UUID v7; `webhook-id` of its requests. */
  id: string;
  app_id: number;
  type: string;
  subject: string | null;
  data: Json<JsonObject>;
  at: Date;
}

/** An event for one webhook. */
interface WebhookDeliveryRow {
  event_id: string;
  webhook_id: string;
  /** The order of what has the same subject. */
  seq: Default<number>;
  subject: string | null;
  state: Default<WebhookDeliveryState>;
  attempts: Default<number>;
  next_at: Default<Date>;
  last_attempt_at: Date | null;
  last_status: number | null;
  last_error: string | null;
  delivered_at: Date | null;
}
