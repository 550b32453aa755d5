import { type Kysely, sql } from 'kysely';
import type { CredentialKind } from '../domain/credential.ts';
import type { ProviderName } from '../domain/device.ts';
import type { HaltReason, NotificationState } from '../domain/notification-state.ts';
import { isUnreachable } from './provider-hosts.ts';
import type { Database } from './schema.ts';

/** How far an installation is with its work, over all apps; what metrics tell of the books. Apps by name. */
export interface InstallationState {
  /** Not drafts, and without closed books. */
  notifications: { state: NotificationState; haltReason: HaltReason | null; count: number }[];
  batches: { provider: ProviderName; open: number; pendingDevices: number }[];
  /** Devices of batches that were refused for now: already due, and not; no more than `mostDeferrals` are looked at. */
  deferrals: { due: number; later: number };
  lanes: LaneState[];
  /** Hosts of providers that are held back by a refusal, or cannot be reached, for some credential of the app. */
  hosts: { app: string; provider: ProviderName; blocked: number; unreachable: number }[];
  /** The last day of what is in use, where it has one. */
  credentials: { app: string; kind: CredentialKind; secondsLeft: number }[];
  /** Where somebody limited or blocked an app's rate. */
  rates: { app: string; provider: ProviderName; perSecond: number | null; secondsUntilFree: number }[];
  /** By app; disabled ones wait for somebody, failing ones are tried on. */
  webhooks: { app: string; failing: number; disabled: number }[];
  /** Deliveries to all webhooks that were not taken yet, and since when the oldest has been due; no more than so many are looked at. */
  webhookDeliveries: { pending: number; lagSeconds: number };
  /** Sends that ended and whose books were not uploaded, and since when the first has waited. */
  exports: { waiting: number; oldestSeconds: number };
}

/** The lanes of an app and provider. */
interface LaneState {
  app: string;
  provider: ProviderName;
  /** Devices without an outcome. */
  pending: number;
  /** Since the oldest of them was due: accepted, or to be tried again. */
  lagSeconds: number;
  halted: number;
}

const mostDeferrals = 1_000_000;
const mostWebhookDeliveries = 100_000;
const mostExports = 10_000;
/** Of a lane's entries that wait for another attempt, so many are looked at. */
const mostWaiting = 1_000;

/**
 * By indexes, in proportion to what is unfinished.
 * @param timeoutMs of each of its few statements
 */
export async function readInstallationOfAllApps(
  db: Kysely<Database>,
  { timeoutMs, isUploading }: { timeoutMs: number; isUploading: boolean },
): Promise<InstallationState> {
  return db
    .transaction()
    .setAccessMode('read only')
    .execute(async (trx) => {
      await sql`select set_config('statement_timeout', ${String(timeoutMs)}, true)`.execute(trx);
      return {
        notifications: await readNotifications(trx),
        batches: await readBatches(trx),
        deferrals: await readDeferrals(trx),
        lanes: await readLanes(trx),
        hosts: await readHosts(trx),
        credentials: await readCredentials(trx),
        rates: await readRates(trx),
        webhooks: await readWebhooks(trx),
        webhookDeliveries: await readWebhookDeliveries(trx),
        exports: await readExports(trx, isUploading),
      };
    });
}

async function rowsOf<T>(trx: Kysely<Database>, query: ReturnType<typeof sql<T>>): Promise<T[]> {
  return (await query.execute(trx)).rows;
}

const readNotifications = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<InstallationState['notifications'][number]>`
      select state, halt_reason as "haltReason", count(*) as count from notifications
      where finished_at is null and state <> 'draft' group by 1, 2
    `,
  );

const readBatches = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<InstallationState['batches'][number]>`
      select provider, count(*) as open,
        sum(size - accepted - rejected - unregistered - expired - failed - skipped - cancelled - unknown)::bigint as "pendingDevices"
      from batches where finished_at is null group by 1
    `,
  );

async function readDeferrals(trx: Kysely<Database>): Promise<InstallationState['deferrals']> {
  const [row] = await rowsOf(
    trx,
    sql<InstallationState['deferrals']>`
      select count(*) filter (where not_before <= now()) as due, count(*) filter (where not_before > now()) as later
      from (select not_before from deferrals limit ${mostDeferrals}) as some_deferrals
    `,
  );
  return row!;
}

const readLanes = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<LaneState>`
      with unfinished as (
        select l.id, l.app_id, l.provider, l.settled, l.horizon
        from lanes l join lane_ends e on e.lane_id = l.id where l.settled < e.next_position
      ), counted as (
        select c.lane_id, sum(case c.outcome when 'entered' then c.devices else -c.devices end)::bigint as pending
        from message_counts c where c.app_id in (select app_id from unfinished) group by 1
      ), oldest as (
        select u.id, least(
          (select uuid_v7_instant(m.message_id) from message_entries m
            where m.lane_id = u.id and m.position >= u.horizon and m.outcome is null order by m.position limit 1),
          (select min(w.not_before) from (
            select m.not_before from message_entries m
            where m.lane_id = u.id and m.position >= u.settled and m.position < u.horizon and m.outcome is null
            order by m.position limit ${mostWaiting}
          ) as w where w.not_before <= now())
        ) as since from unfinished u
      )
      select a.name as app, l.provider, coalesce(sum(counted.pending), 0)::bigint as pending,
        coalesce(greatest(0, extract(epoch from clock_timestamp() - min(oldest.since))), 0)::float8 as "lagSeconds",
        count(l.halt_reason) as halted
      from lanes l join apps a on a.id = l.app_id left join counted on counted.lane_id = l.id left join oldest on oldest.id = l.id
      where l.halt_reason is not null or l.id in (select id from unfinished)
      group by 1, 2
    `,
  );

const readHosts = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<InstallationState['hosts'][number]>`
      select a.name as app, h.provider, count(distinct h.host) filter (where h.blocked_until > now()) as blocked,
        count(distinct h.host) filter (where ${isUnreachable}) as unreachable
      from provider_hosts h join apps a on a.id = h.app_id
      where h.blocked_until > now() or ${isUnreachable} group by 1, 2
    `,
  );

const readCredentials = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<InstallationState['credentials'][number]>`
      select app, kind, extract(epoch from expires_at - now())::float8 as "secondsLeft" from (
        select distinct on (c.app_id, split_part(c.kind, '_', 1)) a.name as app, c.kind, c.expires_at
        from credentials c join apps a on a.id = c.app_id
        where c.revoked_at is null and c.activated_at is not null
        order by c.app_id, split_part(c.kind, '_', 1), c.activated_at desc, c.id desc
      ) as in_use where expires_at is not null
    `,
  );

const readRates = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<InstallationState['rates'][number]>`
      select a.name as app, split_part(r.scope, ':', 3) as provider, r.rate_per_second as "perSecond",
        greatest(0, extract(epoch from greatest(r.next_at, r.blocked_until) - clock_timestamp()))::float8 as "secondsUntilFree"
      from rate_limits r join apps a on r.scope like 'app:%' and a.id = split_part(r.scope, ':', 2)::bigint
      where r.scope not like '%:lanes' and (r.rate_per_second is not null or r.blocked_until > now())
    `,
  );

const readWebhooks = (trx: Kysely<Database>) =>
  rowsOf(
    trx,
    sql<InstallationState['webhooks'][number]>`
      select a.name as app, count(*) filter (where w.disabled_at is null) as failing, count(w.disabled_at) as disabled
      from webhooks w join apps a on a.id = w.app_id where w.failing_since is not null or w.disabled_at is not null group by 1
    `,
  );

async function readWebhookDeliveries(trx: Kysely<Database>): Promise<InstallationState['webhookDeliveries']> {
  const [row] = await rowsOf(
    trx,
    sql<InstallationState['webhookDeliveries']>`
      select count(*) as pending, coalesce(greatest(0, extract(epoch from clock_timestamp() - min(next_at))), 0)::float8 as "lagSeconds"
      from (select next_at from webhook_deliveries where state = 'pending' limit ${mostWebhookDeliveries}) as some_deliveries
    `,
  );
  return row!;
}

/** Since the first bucket was set. */
async function readExports(trx: Kysely<Database>, isUploading: boolean): Promise<InstallationState['exports']> {
  if (!isUploading) return { waiting: 0, oldestSeconds: 0 };
  const [row] = await rowsOf(
    trx,
    sql<InstallationState['exports']>`
      select count(*) as waiting, coalesce(extract(epoch from clock_timestamp() - min(finished_at)), 0)::float8 as "oldestSeconds"
      from (
        select finished_at from notifications
        where exported_at is null and launched_at is not null and finished_at >= (select min(set_at) from book_stores)
        order by finished_at limit ${mostExports}
      ) as unexported
    `,
  );
  return row!;
}
