import { type Kysely, sql } from 'kysely';
import { defaultAppName } from '../domain/app.ts';
import { type ProviderName, providerNames } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** An app that cannot send to devices of this provider, for want of a credential that the provider takes. */
export interface MuteApp {
  app: string;
  provider: ProviderName;
  /** The worst that is known. `halted`: lanes stopped themselves, by a credential of files as well. */
  reason: 'missing' | 'expired' | 'refused' | 'halted';
  /** A sentence; no secret. Null: the reason says all. */
  detail: string | null;
  /** Null: it never had one. */
  since: Date | null;
}

/** It is noted once a minute that a credential is in use: one that was used so long after its refusal is accepted again. */
const noteSeconds = 65;
/** Devices of an app that are looked at for one of the provider, in an order that leaves the planner no other way than by index. */
const sample = 100;
const limit = 100;

/**
 * App `default` may send by files, which only workers see: of it a missing or an expired credential says nothing.
 * Of apps that are being deleted nothing is told.
 */
export async function listMuteAppsOfAllApps(db: Kysely<Database>): Promise<MuteApp[]> {
  const { rows } = await sql<MuteApp>`
    with held as (
      select a.id as app_id, a.name as app, p.provider, a.name = ${defaultAppName} as may_have_files
      from apps a cross join unnest(${[...providerNames]}::text[]) as p (provider) where a.deletion is null
    ), usable as (
      select distinct on (app_id, provider) app_id, split_part(kind, '_', 1) as provider, last_used_at, last_refused_at, last_refusal
      from credentials
      where revoked_at is null and activated_at is not null and (expires_at is null or expires_at > now())
      order by app_id, provider, activated_at desc, id desc
    ), outlived as (
      select app_id, split_part(kind, '_', 1) as provider, max(expires_at) as expired_at
      from credentials where revoked_at is null and expires_at <= now() group by 1, 2
    ), halted as (
      select app_id, provider, min(halted_at) as halted_at, (array_agg(halt_detail order by halted_at))[1] as detail
      from lanes where halt_reason = 'credentials' group by 1, 2
    )
    select held.app, held.provider, faults.reason, faults.detail, faults.since
    from held left join usable using (app_id, provider) left join outlived using (app_id, provider) left join halted using (app_id, provider)
    cross join lateral (
      select * from (
        select 1, 'expired', null, outlived.expired_at where usable.app_id is null and outlived.app_id is not null and not may_have_files
        union all
        select 2, 'missing', null, null::timestamptz
        where usable.app_id is null and outlived.app_id is null and not may_have_files and exists (
          select from (
            select provider, retired_at from devices d where d.app_id = held.app_id order by d.external_id limit ${sample}
          ) as some_devices
          where some_devices.provider = held.provider and some_devices.retired_at is null
        )
        union all
        select 3, 'refused', usable.last_refusal, usable.last_refused_at
        where usable.last_refused_at > coalesce(usable.last_used_at, '-infinity') - make_interval(secs => ${noteSeconds})
        union all
        select 4, 'halted', halted.detail, halted.halted_at where halted.app_id is not null
      ) as found (rank, reason, detail, since) order by rank limit 1
    ) as faults
    order by held.app, held.provider limit ${limit}
  `.execute(db);
  return rows;
}
