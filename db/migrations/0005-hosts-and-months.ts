import { type Kysely, sql } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await makePartitionsOnDemand(db);
  await keepHostsApart(db);
}

/**
 * A notification's outcomes lie in the partition of its id's month, and ids are made by the API's clock, long before a launch
 * where a draft is kept. So partitions made ahead by the calendar are not enough: each claim makes sure of its own.
 */
async function makePartitionsOnDemand(db: Kysely<unknown>): Promise<void> {
  // The first 48 bits are Unix milliseconds (RFC 9562 §5.7).
  await sql`
    create function uuid_v7_instant(id uuid) returns timestamptz language sql immutable strict parallel safe as $$
      select to_timestamp(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
    $$
  `.execute(db);

  // Attached, not created as a partition: that would wait for every statement on deliveries to end, and all later ones for it;
  // attaching an empty table holds up no statement (PostgreSQL manual, ALTER TABLE, ATTACH PARTITION). A month that was detached and
  // kept is attached again.
  await sql`
    create function create_delivery_partition(instant timestamptz) returns void language plpgsql as $$
    declare
      starts_at timestamp := date_trunc('month', instant at time zone 'UTC');
      name text := 'deliveries_' || to_char(starts_at, 'YYYY_MM');
    begin
      for i in 1..2 loop
        if exists (
          select from pg_inherits where inhparent = 'deliveries'::regclass and inhrelid = to_regclass(name)
        ) then return; end if;
        -- Somebody may have made it while this one waited for the lock.
        perform pg_advisory_xact_lock(hashtext('create_delivery_partitions'));
      end loop;
      if to_regclass(name) is null then execute format('create table %I (like deliveries including all)', name); end if;
      execute format('alter table deliveries attach partition %I for values from (%L) to (%L)', name,
        uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC'));
    end
    $$
  `.execute(db);
  await sql`
    create or replace function create_delivery_partitions(from_month date, months integer) returns void language sql as $$
      select create_delivery_partition((from_month::timestamp + make_interval(months => i)) at time zone 'UTC')
      from generate_series(0, months - 1) i
    $$
  `.execute(db);

  // Whatever would refuse every outcome (a missing month, a right, a trigger, a constraint) refuses this one, which is taken back.
  await sql`
    create function rehearse_recording(p_notification_id uuid, p_seq integer) returns void language plpgsql as $$
    begin
      perform create_delivery_partition(uuid_v7_instant(p_notification_id));
      begin
        insert into deliveries (notification_id, batch_seq, device_id, outcome, http_status, attempts, in_doubt)
          values (p_notification_id, p_seq, -p_seq, 'accepted', 200, 1, false);
        raise exception sqlstate 'CR001';
      exception when sqlstate 'CR001' then null;
      end;
    end
    $$
  `.execute(db);

  // Outcomes are forgotten by when their send ended: an old draft that was launched lately lies in an old month.
  await sql`
    create function drop_delivery_months(finished_before date) returns setof text language plpgsql as $$
    declare
      name text;
      starts_at timestamp;
    begin
      perform pg_advisory_xact_lock(hashtext('create_delivery_partitions'));
      for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'deliveries'::regclass and c.relname ~ '^deliveries_[0-9]{4,}_[0-9]{2}$' order by 1
      loop
        starts_at := to_date(substr(name, 12), 'YYYY_MM');
        continue when starts_at + interval '1 month' > finished_before or exists (
          select from notifications
          where id >= uuid_v7_floor(starts_at at time zone 'UTC')
            and id < uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC')
            and launched_at is not null and (finished_at is null or finished_at >= finished_before at time zone 'UTC')
        );
        execute format('drop table %I', name);
        return next name;
      end loop;
    end
    $$
  `.execute(db);
}

/**
 * What holds one host of a provider back is kept by host and credential: Apple's sandbox that cannot be reached says nothing about
 * its production. `rate_limits` keeps what holds for an app and provider as a whole.
 *
 * `reserve_window` is as in 0002, and besides
 * - `hosts`: a JSON array of what is known to be wrong with the provider's hosts, null for nothing: `host`, `wait_ms` (0: it may be
 *   tried), `reason`, `is_unreachable`, `is_let_through`;
 * - `p_hosts`, `p_credential`: where the window's devices are sent to. A host that cannot be reached is tried by one window at a
 *   time: the window that is let through keeps the others away for as long as an attempt takes.
 * Workers from before it call it without the last two.
 */
async function keepHostsApart(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table provider_hosts (
      app_id bigint not null,
      provider text not null,
      host text not null,
      credential text not null,
      blocked_until timestamptz not null default '-infinity',
      unreachable_since timestamptz,
      next_try_at timestamptz not null default '-infinity',
      last_tried_at timestamptz,
      last_error text,
      constraint provider_hosts_pkey primary key (app_id, provider, host, credential),
      constraint provider_hosts_app_fkey foreign key (app_id) references apps (id),
      constraint provider_hosts_provider_check check (provider in ('apns', 'fcm')),
      constraint provider_hosts_unreachable_check check (
        (unreachable_since is null) = (last_error is null) and (unreachable_since is null) = (last_tried_at is null)
      )
    )
  `.execute(db);
  await sql`drop function reserve_window(uuid, integer, integer, integer[], bigint[], text)`.execute(db);
  await sql`
    create function reserve_window(
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

      -- Read without a lock: a window granted in the millisecond of a pause is one window, and windows wait for nobody.
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
          case when cardinality(p_positions) > 0 then p_positions[least(granted, cardinality(p_positions))] + 1 else 0 end),
        first_dispatched_at = coalesce(first_dispatched_at, moment)
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
