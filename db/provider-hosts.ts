import { type Kysely, sql } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { UnreachableHost } from '../domain/notification.ts';
import type { Database } from './schema.ts';

/** Where one app sends with one credential. Blocks and outages are known by it. */
export interface HostScope {
  appId: number;
  provider: ProviderName;
  host: string;
  /** Names the credential, and is none. */
  credential: string;
}

/** What `reserve_window` tells of a host; a `waitMs` of 0: it may be tried. */
export interface HostTrouble {
  host: string;
  waitMs: number;
  reason: string;
  isUnreachable: boolean;
  /** The caller's window is the one that tries whether it is back. */
  isLetThrough: boolean;
}

/** Tried no more lately than this, a host is not called unreachable: nothing is being sent to it. */
const shownFor = sql.lit('15 minutes');

/** No worker sends to this host for `waitMs`; a shorter block than the stored one changes nothing. */
export async function blockHost(db: Kysely<Database>, scope: HostScope, waitMs: number): Promise<void> {
  await db
    .insertInto('provider_hosts')
    .values({ ...keyOf(scope), blocked_until: fromNow(waitMs) })
    .onConflict((oc) =>
      oc.constraint('provider_hosts_pkey').doUpdateSet({
        blocked_until: sql`greatest(provider_hosts.blocked_until, excluded.blocked_until)`,
      }),
    )
    .execute();
}

/** The host was tried in vain; a repeat keeps the first instant. `error` is shown to people. */
export async function noteUnreachable(
  db: Kysely<Database>,
  scope: HostScope,
  error: string,
  retryMs: number,
): Promise<void> {
  const outage = { last_tried_at: fromNow(0), last_error: error, next_try_at: fromNow(retryMs) };
  await db
    .insertInto('provider_hosts')
    .values({ ...keyOf(scope), unreachable_since: fromNow(0), ...outage })
    .onConflict((oc) =>
      oc.constraint('provider_hosts_pkey').doUpdateSet({
        unreachable_since: sql`coalesce(provider_hosts.unreachable_since, excluded.unreachable_since)`,
        ...outage,
      }),
    )
    .execute();
}

/** The window that was let through did not try after all: the next one may. */
export async function leaveTry(db: Kysely<Database>, scope: HostScope): Promise<void> {
  await sql`
    update provider_hosts set next_try_at = '-infinity'
    where app_id = ${scope.appId} and provider = ${scope.provider} and host = ${scope.host}
      and credential = ${scope.credential} and unreachable_since is not null
  `.execute(db);
}

/** The host has answered. */
export async function noteReachable(db: Kysely<Database>, { appId, provider, host }: HostScope): Promise<void> {
  await db
    .updateTable('provider_hosts')
    .set({ unreachable_since: null, last_tried_at: null, last_error: null, next_try_at: sql`'-infinity'` })
    .where('app_id', '=', appId)
    .where('provider', '=', provider)
    .where('host', '=', host)
    .where('unreachable_since', 'is not', null)
    .execute();
}

export async function listUnreachableHostsOfAllApps(db: Kysely<Database>): Promise<UnreachableHost[]> {
  const { rows } = await sql<{ hosts: StoredHost[] }>`select ${unreachableHosts(sql`true`)} as hosts`.execute(db);
  return rows[0]!.hosts.map(toUnreachableHost);
}

/** As dates come in JSON. */
export type StoredHost = Omit<UnreachableHost, 'since' | 'lastTriedAt'> & { since: string; last_tried_at: string };

/** Of a row `h`: nobody could reach the host, and somebody tried of late. */
export const isUnreachable = sql<boolean>`(h.unreachable_since is not null and h.last_tried_at > clock_timestamp() - ${shownFor}::interval)`;

/** An expression: the hosts that cannot be reached now, of the rows `h` that meet `condition`, as JSON. */
export function unreachableHosts(condition: ReturnType<typeof sql>) {
  return sql<StoredHost[]>`(
    select coalesce(jsonb_agg(jsonb_build_object('provider', provider, 'host', host, 'error', error, 'since', since,
      'last_tried_at', last_tried_at) order by provider, host), '[]')
    from (
      select h.provider, h.host, min(h.unreachable_since) as since, max(h.last_tried_at) as last_tried_at,
        (array_agg(h.last_error order by h.last_tried_at desc))[1] as error
      from provider_hosts h
      where ${isUnreachable} and ${condition}
      group by h.provider, h.host
    ) as unreachable
  )`;
}

export function toUnreachableHost({ since, last_tried_at, ...rest }: StoredHost): UnreachableHost {
  return { ...rest, since: new Date(since), lastTriedAt: new Date(last_tried_at) };
}

function keyOf({ appId, provider, host, credential }: HostScope) {
  return { app_id: appId, provider, host, credential };
}

/** By PostgreSQL's clock, which `reserve_window` compares with. */
function fromNow(ms: number) {
  return sql<Date>`clock_timestamp() + make_interval(secs => ${ms / 1000})`;
}
