import { type Kysely, type RawBuilder, sql } from 'kysely';
import { workerActor } from '../domain/actor.ts';
import type { JsonObject } from '../domain/json.ts';
import type { DisabledReason, WebhookDeliveryState } from '../domain/webhook.ts';
import { type AttemptVerdict, disableAfterMs, judgeAttempt, type WebhookAttempt } from '../domain/webhook-attempt.ts';
import type { Database } from './schema.ts';
import { inTransaction } from './transaction.ts';
import { disableWebhook, maxPendingCount } from './webhooks.ts';

/** The right to deliver to a webhook, and what that takes. */
export interface WebhookClaim {
  id: string;
  appId: number;
  fence: number;
  url: string;
  secret_jwe: string;
  previous_secret_jwe: string | null;
  isEnabled: boolean;
  failures: number;
  failingSince: string | null;
  lastError: string | null;
  /** Until it may be asked again, in milliseconds; 0: now. */
  blockedMs: number;
}

/** A worker that has shown itself so long ago is gone: its webhook may be given to another. */
const busySeconds = 20;
/** A worker that was told to take a webhook has so long to do it. */
const wokenSeconds = 10;

/**
 * Makes every earlier claim a zombie. With `own`, the caller's fence, it reads the webhook again and shows that the caller lives.
 * @returns undefined where there is no such webhook, or `own` is not the latest claim any more
 */
export async function claimWebhookOfAnyApp(
  db: Kysely<Database>,
  id: string,
  own?: number,
): Promise<WebhookClaim | undefined> {
  const { rows } = await sql<WebhookClaim>`
    update webhooks set fence = ${own === undefined ? sql`fence + 1` : own}::integer,
      busy_until = clock_timestamp() + make_interval(secs => ${busySeconds})
    where id = ${id} and fence = ${own ?? sql`fence`}
    returning id, app_id as "appId", fence, url, secret_jwe,
      case when previous_until > clock_timestamp() then previous_secret_jwe end as previous_secret_jwe,
      disabled_at is null as "isEnabled", failures, iso_instant(failing_since) as "failingSince", last_error as "lastError",
      case when blocked_until > clock_timestamp()
        then ceil(extract(epoch from blocked_until - clock_timestamp()) * 1000)::integer else 0 end as "blockedMs"
  `.execute(db);
  return rows[0];
}

/** The next worker need not wait. */
export async function releaseWebhookOfAnyApp(db: Kysely<Database>, { id, fence }: WebhookClaim): Promise<void> {
  await sql`update webhooks set busy_until = clock_timestamp() where id = ${id} and fence = ${fence}`.execute(db);
}

export interface DueDelivery {
  eventId: string;
  attempts: number;
  type: string;
  at: Date;
  data: JsonObject;
}

/** An earlier one of the same subject, due or not, holds a later one up. */
const isFirstOfItsSubject: RawBuilder<boolean> = sql`(d.subject is null or not exists (
  select from webhook_deliveries earlier
  where earlier.webhook_id = d.webhook_id and earlier.state = 'pending' and earlier.subject = d.subject and earlier.seq < d.seq))`;

/**
 * What may be delivered now, the longest due first; without `underWay`, ids of events. Due by the statement's time, which an index is
 * searched by.
 */
export async function listDueOfAnyApp(
  db: Kysely<Database>,
  webhookId: string,
  { limit, underWay }: { limit: number; underWay: string[] },
): Promise<DueDelivery[]> {
  const { rows } = await sql<DueDelivery>`
    select d.event_id as "eventId", d.attempts, e.type, e.at, e.data
    from webhook_deliveries d join webhook_events e on e.id = d.event_id
    where d.webhook_id = ${webhookId} and d.state = 'pending' and d.next_at <= statement_timestamp()
      and d.event_id <> all (${underWay}::uuid[]) and ${isFirstOfItsSubject}
    order by d.next_at, d.seq limit ${limit}
  `.execute(db);
  return rows;
}

/** How many wait, at most 10 000, and for how long until the next of them is due; undefined: none waits. */
export async function readWaitingOfAnyApp(
  db: Kysely<Database>,
  webhookId: string,
): Promise<{ pending: number; nextMs: number | undefined }> {
  const { rows } = await sql<{ pending: number; nextMs: number | null }>`
    select
      (select count(*) from (
        select from webhook_deliveries where webhook_id = ${webhookId} and state = 'pending' limit ${maxPendingCount}
      ) waiting) as pending,
      (select greatest(ceil(extract(epoch from d.next_at - clock_timestamp()) * 1000), 0)::bigint from webhook_deliveries d
        where d.webhook_id = ${webhookId} and d.state = 'pending' and ${isFirstOfItsSubject} order by d.next_at limit 1) as "nextMs"
  `.execute(db);
  const { pending, nextMs } = rows[0]!;
  return { pending, nextMs: nextMs ?? undefined };
}

/**
 * Stores what became of one attempt, and what follows from it for the webhook: with 410, or when it has failed for days, it is disabled.
 * @returns undefined where the claim is not the latest any more, and nothing is stored
 */
export async function recordAttempt(
  db: Kysely<Database>,
  claim: WebhookClaim,
  { eventId, attempts }: Pick<DueDelivery, 'eventId' | 'attempts'>,
  attempt: WebhookAttempt,
  random: number,
): Promise<{ verdict: AttemptVerdict; disabled?: DisabledReason | undefined } | undefined> {
  const { id, appId, fence } = claim;
  if (judgeAttempt(attempt, attempts + 1, 1, random).kind === 'delivered') {
    return (await recordDelivered(db, claim, eventId, attempt)) ? { verdict: { kind: 'delivered' } } : undefined;
  }
  return inTransaction(db, async (trx) => {
    const { rows } = await sql<{ failures: number; failingMs: number }>`
      select failures, coalesce(extract(epoch from clock_timestamp() - failing_since) * 1000, 0)::float8 as "failingMs"
      from webhooks where id = ${id} and app_id = ${appId} and fence = ${fence} for no key update
    `.execute(trx);
    const [webhook] = rows;
    if (webhook === undefined) return undefined;
    const verdict = judgeAttempt(attempt, attempts + 1, webhook.failures + 1, random);
    const { state, waitMs } = stateAfter(verdict);
    await sql`
      update webhook_deliveries set state = ${state}, attempts = least(attempts + 1, 32767),
        next_at = clock_timestamp() + make_interval(secs => ${waitMs / 1000}), last_attempt_at = clock_timestamp(),
        last_status = ${attempt.status ?? null}, last_error = ${attempt.error ?? null}
      where event_id = ${eventId} and webhook_id = ${id} and state = 'pending'
    `.execute(trx);
    const blockMs = 'blockMs' in verdict ? verdict.blockMs : 0;
    await sql`
      update webhooks set failing_since = coalesce(failing_since, clock_timestamp()), failures = failures + 1,
        last_error = ${attempt.error ?? null},
        blocked_until = greatest(blocked_until, clock_timestamp() + make_interval(secs => ${blockMs / 1000}))
      where id = ${id}
    `.execute(trx);
    const disabled = verdict.kind === 'gone' ? 'gone' : webhook.failingMs >= disableAfterMs ? 'failing' : undefined;
    if (disabled !== undefined) await disableWebhook(trx, workerActor, appId, id, disabled);
    return { verdict, disabled };
  });
}

/** As nearly all attempts end: one statement. @returns false where the claim is not the latest any more */
async function recordDelivered(
  db: Kysely<Database>,
  { id, fence }: WebhookClaim,
  eventId: string,
  { status }: WebhookAttempt,
): Promise<boolean> {
  const { rows } = await sql<{ isMine: boolean }>`
    with mine as (
      update webhooks set failing_since = null, failures = 0, last_delivered_at = clock_timestamp()
      where id = ${id} and fence = ${fence} returning id
    ),
    recorded as (
      update webhook_deliveries d set state = 'delivered', attempts = least(attempts + 1, 32767), last_status = ${status ?? null},
        last_error = null, last_attempt_at = clock_timestamp(), delivered_at = clock_timestamp()
      from mine where d.event_id = ${eventId} and d.webhook_id = mine.id and d.state = 'pending'
    )
    select exists (select from mine) as "isMine"
  `.execute(db);
  return rows[0]!.isMine;
}

/** One that was refused for good stays pending: its webhook is disabled, and may be enabled again. */
function stateAfter(verdict: AttemptVerdict): { state: WebhookDeliveryState; waitMs: number } {
  if (verdict.kind === 'retry') return { state: 'pending', waitMs: verdict.waitMs };
  return { state: verdict.kind === 'gone' ? 'pending' : verdict.kind, waitMs: 0 };
}

/**
 * Webhooks that nobody delivers to, although something is due. Each is told to one caller, who is to see to it that somebody does; to
 * the next one ten seconds later.
 * @param ids of these alone; what is due by itself only a moment later, as its workflow is about to see it
 */
export async function takeIdleWebhooksOfAllApps(
  db: Kysely<Database>,
  ids?: string[],
): Promise<{ id: string; url: string }[]> {
  const { rows } = await sql<{ id: string; url: string }>`
    update webhooks w set busy_until = clock_timestamp() + make_interval(secs => ${wokenSeconds})
    where w.disabled_at is null and w.busy_until <= clock_timestamp() and w.blocked_until <= clock_timestamp()
      and ${ids === undefined ? sql`true` : sql`w.id = any (${ids}::uuid[])`}
      and exists (
        select from webhook_deliveries d where d.webhook_id = w.id and d.state = 'pending'
          and d.next_at <= statement_timestamp() - make_interval(secs => ${ids === undefined ? 2 : 0}) and ${isFirstOfItsSubject})
    returning w.id, w.url
  `.execute(db);
  return rows;
}

/** A line of the log. */
export interface WebhookDelivery {
  eventId: string;
  type: string;
  subject: string | null;
  /** When it happened. */
  at: Date;
  state: WebhookDeliveryState;
  attempts: number;
  /** Of one that is pending: not before. */
  nextAt: Date;
  lastAttemptAt: Date | null;
  lastStatus: number | null;
  lastError: string | null;
  deliveredAt: Date | null;
}

/** Newest first; `cursor` is the last event's id of the page before. */
export async function listDeliveries(
  db: Kysely<Database>,
  appId: number,
  webhookId: string,
  search: { state?: WebhookDeliveryState | undefined; eventId?: string | undefined },
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<WebhookDelivery[]> {
  const { rows } = await sql<WebhookDelivery>`
    select d.event_id as "eventId", e.type, d.subject, e.at, d.state, d.attempts, d.next_at as "nextAt",
      d.last_attempt_at as "lastAttemptAt", d.last_status as "lastStatus", d.last_error as "lastError", d.delivered_at as "deliveredAt"
    from webhook_deliveries d join webhook_events e on e.id = d.event_id
    where d.webhook_id = ${webhookId} and e.app_id = ${appId}
      and ${search.state === undefined ? sql`true` : sql`d.state = ${search.state}`}
      and ${search.eventId === undefined ? sql`true` : sql`d.event_id = ${search.eventId}`}
      and ${cursor === undefined ? sql`true` : sql`d.event_id < ${cursor}`}
    order by d.event_id desc limit ${limit}
  `.execute(db);
  return rows;
}

export interface Replay {
  state: WebhookDeliveryState;
  /** Included; by the time at which the event was stored. */
  since: Date;
  /** Not included. */
  until?: Date | undefined;
  /** The last event's id of the page before. */
  cursor?: string | undefined;
  limit: number;
}

/** Delivers a page of them anew, oldest first, with all attempts before them. Pending ones are tried at once. @returns ids of events */
export async function replayDeliveries(
  db: Kysely<Database>,
  appId: number,
  webhookId: string,
  { state, since, until, cursor, limit }: Replay,
): Promise<string[]> {
  return replay(
    db,
    sql`array(
      select d.event_id from webhook_deliveries d join webhook_events e on e.id = d.event_id
      where d.webhook_id = ${webhookId} and e.app_id = ${appId} and d.state = ${state} and d.event_id >= ${floorOf(since)}
        and ${until === undefined ? sql`true` : sql`d.event_id < ${floorOf(until)}`}
        and ${cursor === undefined ? sql`true` : sql`d.event_id > ${cursor}`}
      order by d.event_id limit ${limit})`,
    webhookId,
  );
}

/** The same of one, whatever its state; false: there is no such delivery. */
export async function replayDelivery(
  db: Kysely<Database>,
  appId: number,
  webhookId: string,
  eventId: string,
): Promise<boolean> {
  const ids = sql`array(select id from webhook_events where id = ${eventId} and app_id = ${appId})`;
  return (await replay(db, ids, webhookId)).length > 0;
}

async function replay(db: Kysely<Database>, eventIds: RawBuilder<unknown>, webhookId: string): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    with replayed as (
      update webhook_deliveries set state = 'pending', attempts = 0, next_at = clock_timestamp(), delivered_at = null
      where webhook_id = ${webhookId} and event_id = any (${eventIds}) returning event_id
    )
    select event_id as id from replayed order by 1
  `.execute(db);
  return rows.map(({ id }) => id);
}

/** A UUID v7 knows no instant before 1970. */
function floorOf(instant: Date): RawBuilder<string> {
  return sql`uuid_v7_floor(greatest(${instant}::timestamptz, to_timestamp(0)))`;
}
