import { type Kysely, sql } from 'kysely';

/**
 * `reserve_window` as in 0005, which with 0002 says what it answers; when a batch was first dispatched is no longer noted, as no
 * statement ever read it. Workers of the version before call it as they did.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function reserve_window(
      p_notification_id uuid,
      p_seq integer,
      p_fence integer,
      p_positions integer[],
      p_deferred_ids bigint[],
      p_provider_scope text,
      p_hosts text[] default '{}',
      p_credential text default '',
      out answer text,
      out granted integer,
      out wait_ms integer,
      out hosts jsonb
    ) language plpgsql as $$
    declare
      n record;
      wanted integer := cardinality(p_positions) + cardinality(p_deferred_ids);
      moment timestamptz := clock_timestamp();
      provider_limit rate_limits%rowtype;
      notification_limit rate_limits%rowtype;
      wait interval := interval '0';
      sent_by text;
      tried text[];
    begin
      granted := 0;
      wait_ms := 0;

      -- Read without a lock: a window granted in the millisecond of a pause is one window, and no window waits for another.
      -- Its audience and message can be megabytes: only what is needed.
      select app_id, state, expires_at, rate_per_second into n from notifications where id = p_notification_id;
      if not found then answer := 'cancelled'; return; end if;
      if n.state <> 'sending' then
        answer := case n.state when 'completed' then 'fenced' else n.state end;
        return;
      end if;
      if n.expires_at is not null and n.expires_at <= moment then answer := 'expired'; return; end if;

      granted := wanted;

      -- Rate limits by the generic cell rate algorithm: next_at is the instant at which the quota is free again. The rows are
      -- locked in one order everywhere, so two workers cannot wait for each other.
      select * into provider_limit from rate_limits where scope = p_provider_scope;
      if found and (provider_limit.rate_per_second is not null or provider_limit.blocked_until > moment) then
        select * into provider_limit from rate_limits where scope = p_provider_scope for update;
        moment := clock_timestamp();
        wait := greatest(wait, provider_limit.blocked_until - moment);
        if provider_limit.rate_per_second is not null then
          wait := greatest(wait, provider_limit.next_at - moment);
          granted := least(granted, greatest(1, provider_limit.rate_per_second / 10));
        end if;
      end if;
      if n.rate_per_second is not null then
        insert into rate_limits (scope) values ('notification:' || p_notification_id) on conflict do nothing;
        select * into notification_limit from rate_limits
          where scope = 'notification:' || p_notification_id for update;
        moment := clock_timestamp();
        wait := greatest(wait, notification_limit.next_at - moment);
        granted := least(granted, greatest(1, n.rate_per_second / 10));
      end if;
      if wait > interval '0' then
        answer := 'wait';
        granted := 0;
        wait_ms := ceil(extract(epoch from wait) * 1000);
        return;
      end if;

      update batches set
        horizon = greatest(horizon,
          case when cardinality(p_positions) > 0 then p_positions[least(granted, cardinality(p_positions))] + 1 else 0 end)
        where notification_id = p_notification_id and seq = p_seq and fence = p_fence and finished_at is null
        returning provider into sent_by;
      if not found then answer := 'fenced'; granted := 0; return; end if;

      if cardinality(p_deferred_ids) > 0 then
        update deferrals set dispatched = true
          where notification_id = p_notification_id and device_id = any (p_deferred_ids[1:granted]);
      end if;
      if provider_limit.rate_per_second is not null then
        update rate_limits set next_at = greatest(next_at, moment)
          + make_interval(secs => granted::double precision / provider_limit.rate_per_second)
          where scope = p_provider_scope;
      end if;
      if n.rate_per_second is not null then
        update rate_limits set next_at = greatest(next_at, moment)
          + make_interval(secs => granted::double precision / n.rate_per_second)
          where scope = 'notification:' || p_notification_id;
      end if;

      if exists (
        select from provider_hosts h where h.app_id = n.app_id and h.provider = sent_by and h.credential = p_credential
          and (h.blocked_until > moment or h.unreachable_since is not null)
      ) then
        with let_through as (
          update provider_hosts h set next_try_at = moment + interval '20 seconds'
          where h.app_id = n.app_id and h.provider = sent_by and h.credential = p_credential and h.host = any (p_hosts)
            and h.unreachable_since is not null and h.next_try_at <= moment and h.blocked_until <= moment
          returning h.host
        )
        select coalesce(array_agg(host), '{}') into tried from let_through;
        select jsonb_agg(jsonb_build_object(
          'host', h.host,
          'wait_ms', case when h.host = any (tried) then 0 else greatest(0, ceil(extract(epoch from
            greatest(h.blocked_until, case when h.unreachable_since is not null then h.next_try_at end) - moment) * 1000)) end,
          'reason', coalesce(h.last_error, 'rate limit'),
          'is_unreachable', h.unreachable_since is not null,
          'is_let_through', h.host = any (tried)
        )) into hosts
        from provider_hosts h where h.app_id = n.app_id and h.provider = sent_by and h.credential = p_credential
          and (h.blocked_until > moment or h.unreachable_since is not null);
      end if;
      answer := 'go';
    end
    $$
  `.execute(db);
}
