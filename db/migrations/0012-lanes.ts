import { type Kysely, sql } from 'kysely';

/**
 * Messages to one person, and the lanes that send them. A lane is a batch that never ends: entries are appended at `next_position`, sent
 * to in that order below a horizon, and each gets one outcome. An entry has a row from the start (a batch's device has none), so its
 * outcome is written there. By weeks of the message's UUID v7, so that old ones are dropped as partitions.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await createTables(db);
  await acceptMessages(db);
  await sendByLanes(db);
  await findAlongKeys(db);
  await dropOldWeeks(db);
  await lookAtOwnProviderFirst(db);
}

async function createTables(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table lanes (
      id integer generated always as identity,
      app_id bigint not null,
      provider text not null,
      number integer not null,
      fence integer not null default 0,
      horizon bigint not null default 0,
      settled bigint not null default 0,
      opens_after bigint,
      changes integer not null default 0,
      halt_reason text,
      halt_detail text,
      halted_at timestamptz,
      seen_at timestamptz not null default '-infinity',
      constraint lanes_pkey primary key (id),
      constraint lanes_number_key unique (app_id, provider, number),
      constraint lanes_app_fkey foreign key (app_id) references apps (id),
      constraint lanes_provider_check check (provider in ('apns', 'fcm')),
      constraint lanes_horizon_check check (0 <= settled and settled <= horizon),
      constraint lanes_halt_check check (
        (halt_reason is null) = (halt_detail is null) and (halt_reason is null) = (halted_at is null)
      )
    ) with (fillfactor = 50)
  `.execute(db);
  // Apart from the lane: callers append while the lane's worker moves the horizon, and neither waits for the other.
  await sql`
    create table lane_ends (
      lane_id integer not null,
      next_position bigint not null default 0,
      constraint lane_ends_pkey primary key (lane_id),
      constraint lane_ends_lane_fkey foreign key (lane_id) references lanes (id)
    ) with (fillfactor = 50)
  `.execute(db);
  await sql`
    create table messages (
      id uuid not null,
      app_id bigint not null,
      message jsonb not null,
      recipients jsonb not null,
      device_ids bigint[] not null,
      in_doubt_policy text not null,
      expires_at timestamptz,
      created_at timestamptz not null default now(),
      constraint messages_pkey primary key (id),
      constraint messages_in_doubt_policy_check check (in_doubt_policy in ('redeliver', 'skip'))
    ) partition by range (id)
  `.execute(db);
  await sql`
    create table message_entries (
      message_id uuid not null,
      device_id bigint not null,
      lane_id integer not null,
      position bigint not null,
      expires_at timestamptz,
      not_before timestamptz,
      refused_at timestamptz,
      finished_at timestamptz,
      attempts smallint not null default 0,
      excused smallint not null default 0,
      doubts smallint not null default 0,
      http_status smallint,
      dispatched boolean not null default false,
      outcome delivery_outcome,
      reason text,
      provider_message_id text,
      constraint message_entries_pkey primary key (device_id, message_id),
      constraint message_entries_ended_check check ((outcome is null) = (finished_at is null))
    ) partition by range (message_id)
  `.execute(db);
  await sql`create index message_entries_lane_idx on message_entries (lane_id, position)`.execute(db);
  await sql`
    create function refuse_second_outcome() returns trigger language plpgsql as $$
    begin
      raise unique_violation using message = format('entry %s of lane %s has its outcome already', old.position, old.lane_id),
        table = 'message_entries', constraint = 'message_entries_one_outcome';
    end
    $$
  `.execute(db);
  await sql`
    create trigger refuse_second_outcome before update on message_entries
      for each row when (old.outcome is not null) execute function refuse_second_outcome()
  `.execute(db);
  await sql`
    create table message_keys (
      app_id bigint not null,
      idempotency_key text not null,
      request_hash text not null,
      message_id uuid not null,
      constraint message_keys_pkey primary key (app_id, idempotency_key)
    )
  `.execute(db);
  await sql`create index message_keys_message_idx on message_keys (message_id)`.execute(db);
  // By the day of the message's id. 'entered' is what the outcomes and what is pending add up to; lane 0 and provider '': recipients
  // that had no device, which are skipped as they are accepted.
  await sql`
    create table message_counts (
      app_id bigint not null,
      day date not null,
      provider text not null,
      lane_id integer not null,
      outcome text not null,
      reason text not null,
      devices bigint not null,
      in_doubt bigint not null default 0,
      constraint message_counts_pkey primary key (app_id, day, provider, lane_id, outcome, reason),
      constraint message_counts_provider_check check (provider in ('apns', 'fcm', ''))
    ) with (fillfactor = 50)
  `.execute(db);
  await sql`
    create function create_message_partitions(instant timestamptz) returns void language plpgsql as $$
    declare
      starts_at timestamp := date_trunc('week', instant at time zone 'UTC');
      part text;
      name text;
    begin
      if to_regclass('message_entries_' || to_char(starts_at, 'YYYY_MM_DD')) is not null then return; end if;
      -- Somebody may have made it while this one waited for the lock.
      perform pg_advisory_xact_lock(hashtext('create_message_partitions'));
      foreach part in array array['messages', 'message_entries'] loop
        name := part || '_' || to_char(starts_at, 'YYYY_MM_DD');
        continue when to_regclass(name) is not null;
        -- Attached, not created as a partition; see 0005. Room for the outcome beside the entry, so that no index is written again.
        execute format('create table %I (like %I including all) with (fillfactor = %s)', name, part,
          case part when 'messages' then 100 else 60 end);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', part, name,
          uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '7 days') at time zone 'UTC'));
      end loop;
    end
    $$
  `.execute(db);
  await sql`
    create function message_day(message_id uuid) returns date language sql immutable parallel safe as $$
      select (uuid_v7_instant(message_id) at time zone 'UTC')::date
    $$
  `.execute(db);
}

async function acceptMessages(db: Kysely<unknown>): Promise<void> {
  // Twice as many at a time: a device of lane n then stays there or moves to lane n + half, which opens once lane n has sent on all that
  // it had. So messages to one device keep their order.
  await sql`
    create function open_lanes(p_app_id bigint, p_provider text, p_lanes integer) returns integer language plpgsql as $$
    declare
      lane_count integer;
    begin
      -- No message is accepted meanwhile: accept_messages holds the same lock, shared.
      perform pg_advisory_xact_lock(hashtextextended(format('lanes %s %s', p_app_id, p_provider), 0));
      select count(*) into lane_count from lanes where app_id = p_app_id and provider = p_provider;
      if lane_count = 0 then
        insert into lanes (app_id, provider, number) values (p_app_id, p_provider, 0);
        lane_count := 1;
      end if;
      insert into lane_ends (lane_id) select id from lanes where app_id = p_app_id and provider = p_provider on conflict do nothing;
      while lane_count < p_lanes loop
        insert into lanes (app_id, provider, number, opens_after)
          select app_id, provider, number + lane_count, next_position from lanes join lane_ends on lane_id = id
          where app_id = p_app_id and provider = p_provider;
        insert into lane_ends (lane_id) select id from lanes where app_id = p_app_id and provider = p_provider on conflict do nothing;
        lane_count := 2 * lane_count;
      end loop;
      return lane_count;
    end
    $$
  `.execute(db);

  /*
   * Any number of messages in one transaction: a row for each, an entry for each of its devices at the end of the device's lane, and a
   * wake-up for these lanes. p_of: for each entry, which of the messages it is of, from 1.
   * Answers a row for each message, in order: a repeat under an idempotency key has the id and hash of the first.
   */
  await sql`
    create function accept_messages(
      p_ids uuid[],
      p_app_ids bigint[],
      p_messages jsonb[],
      p_recipients jsonb[],
      p_in_doubt_policies text[],
      p_expire_after integer[],
      p_keys text[],
      p_request_hashes text[],
      p_skipped jsonb[],
      p_of integer[],
      p_device_ids bigint[],
      p_providers text[]
    ) returns table (message_id uuid, request_hash text, is_new boolean) language plpgsql as $$
    declare
      is_fresh boolean[];
      week timestamptz;
      served record;
      -- Of each entry; null: its message is not stored.
      lanes_of integer[];
      lane_ids integer[];
    begin
      for week in select distinct date_trunc('week', uuid_v7_instant(id), 'UTC') from unnest(p_ids) id loop
        perform create_message_partitions(week);
      end loop;

      is_fresh := array_fill(true, array[cardinality(p_ids)]);
      if cardinality(array_remove(p_keys, null)) > 0 then
        insert into message_keys (app_id, idempotency_key, request_hash, message_id)
          select m.app_id, m.key, m.hash, m.id from unnest(p_ids, p_app_ids, p_keys, p_request_hashes) as m (id, app_id, key, hash)
          where m.key is not null order by m.app_id, m.key
          on conflict do nothing;
        select array_agg(m.key is null or exists (
            select from message_keys k where k.app_id = m.app_id and k.idempotency_key = m.key and k.message_id = m.id
          ) order by ordinal) into is_fresh
          from unnest(p_ids, p_app_ids, p_keys) with ordinality as m (id, app_id, key, ordinal);
      end if;

      -- In this order in every transaction: the number of lanes, their ends, the counts.
      for served in
        select distinct p_app_ids[e.of] as app_id, e.provider from unnest(p_of, p_providers) as e (of, provider) order by 1, 2
      loop
        perform pg_advisory_xact_lock_shared(hashtextextended(format('lanes %s %s', served.app_id, served.provider), 0));
        if not exists (select from lanes l where l.app_id = served.app_id and l.provider = served.provider) then
          perform open_lanes(served.app_id, served.provider, 1);
        end if;
      end loop;
      select array_agg(case when is_fresh[e.of] then l.id end order by e.ordinal) into lanes_of
        from unnest(p_of, p_device_ids, p_providers) with ordinality as e (of, device_id, provider, ordinal)
        join (select app_id, provider, count(*) as lane_count from lanes group by 1, 2) known
          on known.app_id = p_app_ids[e.of] and known.provider = e.provider
        join lanes l on l.app_id = known.app_id and l.provider = known.provider and l.number = e.device_id % known.lane_count;

      insert into messages (id, app_id, message, recipients, device_ids, in_doubt_policy, expires_at)
        select m.id, m.app_id, m.message, m.recipients, coalesce(own.device_ids, '{}'), m.policy, now() + make_interval(secs => m.expire_after)
        from unnest(p_ids, p_app_ids, p_messages, p_recipients, p_in_doubt_policies, p_expire_after)
          with ordinality as m (id, app_id, message, recipients, policy, expire_after, ordinal)
        left join (
          select e.of, array_agg(e.device_id order by e.ordinal) as device_ids
          from unnest(p_of, p_device_ids) with ordinality as e (of, device_id, ordinal) group by e.of
        ) own on own.of = m.ordinal
        where is_fresh[m.ordinal];

      -- Locked until the commit: so entries become visible in the order of their positions.
      with entry as materialized (
        select e.of, e.device_id, e.lane_id, row_number() over (partition by e.lane_id order by e.ordinal) as number_in_lane
        from unnest(p_of, p_device_ids, lanes_of) with ordinality as e (of, device_id, lane_id, ordinal)
        where e.lane_id is not null
      ),
      lane as (select entry.lane_id, count(*) as entries from entry group by 1),
      locked as materialized (
        select e.lane_id, e.next_position from lane_ends e where e.lane_id in (select lane.lane_id from lane) order by e.lane_id for update
      ),
      moved as (
        update lane_ends set next_position = lane_ends.next_position + lane.entries
        from locked join lane on lane.lane_id = locked.lane_id where lane_ends.lane_id = locked.lane_id
        returning lane_ends.lane_id
      ),
      stored as (
        insert into message_entries (message_id, device_id, lane_id, position, expires_at)
          select p_ids[entry.of], entry.device_id, entry.lane_id, locked.next_position + entry.number_in_lane - 1,
            now() + make_interval(secs => p_expire_after[entry.of])
          from entry join locked on locked.lane_id = entry.lane_id
      )
      select array_agg(lane_id) into lane_ids from moved;

      insert into message_counts (app_id, day, provider, lane_id, outcome, reason, devices)
        select l.app_id, entered.day, l.provider, l.id, 'entered', '', entered.devices
        from (
          select message_day(p_ids[e.of]) as day, e.lane_id, count(*) as devices from unnest(p_of, lanes_of) as e (of, lane_id)
          where e.lane_id is not null group by 1, 2
        ) as entered join lanes l on l.id = entered.lane_id
        order by l.app_id, entered.day, l.provider, l.id
        on conflict on constraint message_counts_pkey do update set devices = message_counts.devices + excluded.devices;
      if exists (select from unnest(p_skipped) said where said <> '[]') then
        insert into message_counts (app_id, day, provider, lane_id, outcome, reason, devices)
          select m.app_id, message_day(m.id), '', 0, said.outcome, said.reason, count(*)
          from unnest(p_ids, p_app_ids, p_skipped) with ordinality as m (id, app_id, skipped, ordinal)
          cross join jsonb_array_elements(m.skipped) as recipient
          cross join lateral (values ('entered', ''), ('skipped', recipient ->> 'reason')) as said (outcome, reason)
          where is_fresh[m.ordinal]
          group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6
          on conflict on constraint message_counts_pkey do update set devices = message_counts.devices + excluded.devices;
      end if;

      perform pg_notify('carillon_lanes', lane::text) from unnest(lane_ids) lane;
      return query
        select coalesce(k.message_id, m.id), k.request_hash, is_fresh[m.ordinal]
        from unnest(p_ids, p_app_ids, p_keys) with ordinality as m (id, app_id, key, ordinal)
        left join message_keys k on k.app_id = m.app_id and k.idempotency_key = m.key
        order by m.ordinal;
    end
    $$
  `.execute(db);

  /*
   * Ends what was not handed to the provider: fresh entries above the horizon, and deferred ones that are not under way. The lane is told
   * to read again, under the lock with which it reserves. Answers how many entries were ended.
   */
  await sql`
    create function cancel_message(p_message_id uuid, p_device_ids bigint[]) returns integer language plpgsql as $$
    declare
      lane_ids integer[];
      cancelled integer;
    begin
      select array_agg(distinct lane_id order by lane_id) into lane_ids from message_entries
        where message_id = p_message_id and device_id = any (p_device_ids) and outcome is null;
      perform from lanes where id = any (lane_ids) order by id for no key update;
      with ended as (
        update message_entries e set outcome = (case when doubts > 0 then 'unknown' else 'cancelled' end)::delivery_outcome,
          finished_at = clock_timestamp()
        from lanes l
        where e.message_id = p_message_id and e.device_id = any (p_device_ids) and l.id = e.lane_id and e.outcome is null
          and not e.dispatched and (e.not_before is not null or e.position >= l.horizon)
        returning e.lane_id, e.message_id, e.outcome, e.reason, e.doubts
      ),
      counted as (
        select count_ended(array_agg(lane_id), array_agg(message_id), array_agg(outcome), array_agg(reason), array_agg(doubts > 0))
        from ended having count(*) > 0
      )
      select count(*) into cancelled from ended left join counted on true;
      update lanes set changes = changes + 1 where id = any (lane_ids);
      perform pg_notify('carillon_lanes', lane::text) from unnest(lane_ids) lane;
      return cancelled;
    end
    $$
  `.execute(db);
}

async function sendByLanes(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function count_ended(p_lane_ids integer[], p_message_ids uuid[], p_outcomes delivery_outcome[], p_reasons text[], p_in_doubt boolean[])
    returns void language sql as $$
      insert into message_counts (app_id, day, provider, lane_id, outcome, reason, devices, in_doubt)
        select l.app_id, message_day(e.message_id), l.provider, l.id, e.outcome::text, left(coalesce(e.reason, ''), 100), count(*),
          count(*) filter (where e.in_doubt)
        from unnest(p_lane_ids, p_message_ids, p_outcomes, p_reasons, p_in_doubt) as e (lane_id, message_id, outcome, reason, in_doubt)
        join lanes l on l.id = e.lane_id
        group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6
        on conflict on constraint message_counts_pkey do update set
          devices = message_counts.devices + excluded.devices, in_doubt = message_counts.in_doubt + excluded.in_doubt
    $$
  `.execute(db);

  /*
   * Makes every earlier claim a zombie, and notes what it left in doubt: entries below the horizon without outcome or deferral, and
   * deferred ones under way. Also shows, and takes back, that an outcome can be recorded. No row: there is no such lane, the one that
   * it opens after has entries left from before, or p_own, the caller's claim before this one, is not the latest any more.
   */
  await sql`
    create function claim_lane(p_lane_id integer, p_own integer default null, out fence integer, out horizon bigint, out settled bigint, out changes integer)
    returns setof record language plpgsql as $$
    declare
      lane lanes%rowtype;
      parent lanes%rowtype;
    begin
      select * into lane from lanes where id = p_lane_id for no key update;
      if not found or lane.fence <> p_own then return; end if;
      if lane.opens_after is not null then
        select * into parent from lanes p
          where p.app_id = lane.app_id and p.provider = lane.provider
            and p.number = lane.number - (2 ^ floor(log(2, lane.number::numeric)))::integer;
        if parent.opens_after is not null or parent.horizon < lane.opens_after or exists (
          select from message_entries e where e.lane_id = parent.id and e.position >= parent.settled and e.position < lane.opens_after
            and e.outcome is null and (e.not_before is null or e.dispatched or e.reason = 'behind_another')
        ) then return; end if;
      end if;
      update lanes set fence = lanes.fence + 1, opens_after = null, seen_at = clock_timestamp() where id = p_lane_id returning * into lane;
      update message_entries e set attempts = e.attempts + 1, doubts = e.doubts + 1, dispatched = false, reason = 'in_doubt',
        not_before = to_timestamp(0)
        where e.lane_id = p_lane_id and e.position >= lane.settled and e.position < lane.horizon and e.outcome is null
          and (e.dispatched or e.not_before is null);
      select coalesce(min(e.position), lane.horizon) into lane.settled from message_entries e
        where e.lane_id = p_lane_id and e.position >= lane.settled and e.position < lane.horizon and e.outcome is null;
      update lanes set settled = lane.settled where id = p_lane_id;
      begin
        update message_entries e set outcome = 'accepted', finished_at = now()
          where (e.device_id, e.message_id) = (
            select o.device_id, o.message_id from message_entries o
            where o.lane_id = p_lane_id and o.position >= lane.settled and o.outcome is null order by o.position limit 1
          );
        perform count_ended(array[p_lane_id], array[uuid_v7_floor(now())], array['accepted'::delivery_outcome], array[''], array[false]);
        raise exception sqlstate 'CR001';
      exception when sqlstate 'CR001' then null;
      end;
      fence := lane.fence;
      horizon := lane.horizon;
      settled := lane.settled;
      changes := lane.changes;
      return next;
    end
    $$
  `.execute(db);

  /*
   * As reserve_window, for a lane: the deferred entries come first, then the fresh ones, both by position. Besides, the answer 'changed':
   * entries were cancelled since p_changes, the lane must read again.
   * The lanes of an app and provider take up to four fifths of its rate before the campaigns get any: they have a meter of their own, and
   * what they take is taken from the common one without waiting for it.
   */
  await sql`
    create function reserve_lane_window(
      p_lane_id integer,
      p_fence integer,
      p_changes integer,
      p_settled bigint,
      p_positions bigint[],
      p_deferred_messages uuid[],
      p_deferred_devices bigint[],
      p_hosts text[],
      p_credential text,
      out answer text,
      out granted integer,
      out wait_ms integer,
      out hosts jsonb
    ) language plpgsql as $$
    declare
      lane lanes%rowtype;
      scope_of_all text;
      scope_of_lanes text;
      moment timestamptz := clock_timestamp();
      rate double precision;
      blocked timestamptz;
      free_at timestamptz;
      fresh integer;
      tried text[];
    begin
      granted := cardinality(p_positions) + cardinality(p_deferred_devices);
      wait_ms := 0;
      select * into lane from lanes where id = p_lane_id for no key update;
      if not found or lane.fence <> p_fence then answer := 'fenced'; granted := 0; return; end if;
      if lane.changes <> p_changes then answer := 'changed'; granted := 0; return; end if;

      scope_of_all := format('app:%s:%s', lane.app_id, lane.provider);
      select l.rate_per_second, l.blocked_until into rate, blocked from rate_limits l where l.scope = scope_of_all;
      if rate is not null then
        scope_of_lanes := scope_of_all || ':lanes';
        insert into rate_limits (scope) values (scope_of_lanes) on conflict do nothing;
        select l.next_at into free_at from rate_limits l where l.scope = scope_of_lanes for update;
        moment := clock_timestamp();
        granted := least(granted, greatest(1, (rate / 10)::integer));
      end if;
      free_at := greatest(free_at, blocked);
      if free_at > moment then
        answer := 'wait';
        granted := 0;
        wait_ms := ceil(extract(epoch from free_at - moment) * 1000);
        return;
      end if;
      if rate is not null then
        update rate_limits l set next_at = greatest(l.next_at, moment) + make_interval(secs => granted / (rate * 0.8)) where l.scope = scope_of_lanes;
        update rate_limits l set next_at = greatest(l.next_at, moment) + make_interval(secs => granted / rate) where l.scope = scope_of_all;
      end if;

      fresh := granted - cardinality(p_deferred_devices);
      update lanes set
        horizon = case when fresh > 0 then greatest(lanes.horizon, p_positions[fresh] + 1) else lanes.horizon end,
        settled = greatest(lanes.settled, least(p_settled, lanes.horizon)),
        seen_at = moment
        where id = p_lane_id;
      if cardinality(p_deferred_devices) > 0 then
        update message_entries e set dispatched = true
          from unnest(p_deferred_messages[1:granted], p_deferred_devices[1:granted]) as d (message_id, device_id)
          where e.message_id = d.message_id and e.device_id = d.device_id;
      end if;

      if exists (
        select from provider_hosts h where h.app_id = lane.app_id and h.provider = lane.provider and h.credential = p_credential
          and (h.blocked_until > moment or h.unreachable_since is not null)
      ) then
        with let_through as (
          update provider_hosts h set next_try_at = moment + interval '20 seconds'
          where h.app_id = lane.app_id and h.provider = lane.provider and h.credential = p_credential and h.host = any (p_hosts)
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
        from provider_hosts h where h.app_id = lane.app_id and h.provider = lane.provider and h.credential = p_credential
          and (h.blocked_until > moment or h.unreachable_since is not null);
      end if;
      answer := 'go';
    end
    $$
  `.execute(db);

  /* Null: a later claim owns the lane. An accepted entry ends its halt. */
  await sql`
    create function record_entries(
      p_lane_id integer,
      p_fence integer,
      p_message_ids uuid[],
      p_device_ids bigint[],
      p_outcomes delivery_outcome[],
      p_http_statuses smallint[],
      p_attempts smallint[],
      p_in_doubt boolean[],
      p_reasons text[],
      p_provider_message_ids text[],
      p_deferrals jsonb,
      p_retirements jsonb
    ) returns boolean language plpgsql as $$
    declare
      lane record;
      changed integer;
    begin
      select halt_reason into lane from lanes where id = p_lane_id and fence = p_fence for no key update;
      if not found then return null; end if;
      if cardinality(p_device_ids) > 0 then
        update message_entries e set outcome = r.outcome, http_status = r.http_status, attempts = r.attempts,
          doubts = case when r.in_doubt then greatest(e.doubts, 1) else 0 end, reason = r.reason,
          provider_message_id = r.provider_message_id, dispatched = false, finished_at = clock_timestamp()
          from unnest(p_message_ids, p_device_ids, p_outcomes, p_http_statuses, p_attempts, p_in_doubt, p_reasons, p_provider_message_ids)
            as r (message_id, device_id, outcome, http_status, attempts, in_doubt, reason, provider_message_id)
          -- By the lane, its index would serve as well in the eyes of the planner, which knows nothing of a new week.
          where e.message_id = r.message_id and e.device_id = r.device_id and e.lane_id + 0 = p_lane_id;
        get diagnostics changed = row_count;
        if changed <> cardinality(p_device_ids) then
          raise foreign_key_violation using message = format('lane %s has no such entry', p_lane_id);
        end if;
        perform count_ended(array_fill(p_lane_id, array[changed]), p_message_ids, p_outcomes, p_reasons, p_in_doubt);
      end if;
      if p_deferrals is not null then perform defer_entries(p_deferrals); end if;
      if p_retirements is not null then perform retire_devices(p_retirements); end if;
      if lane.halt_reason is not null and 'accepted' = any (p_outcomes) then
        update lanes set halt_reason = null, halt_detail = null, halted_at = null where id = p_lane_id;
      end if;
      return false;
    end
    $$
  `.execute(db);
  await sql`
    create function defer_entries(p_deferrals jsonb) returns void language sql as $$
      update message_entries e set not_before = d.not_before, attempts = d.attempts, excused = d.excused, doubts = d.doubts,
        refused_at = d.refused_at, reason = d.reason, http_status = d.http_status, dispatched = false
        from jsonb_to_recordset(p_deferrals) as d (message_id uuid, device_id bigint, not_before timestamptz, attempts smallint,
          excused smallint, doubts smallint, refused_at timestamptz, reason text, http_status smallint)
        where e.message_id = d.message_id and e.device_id = d.device_id
    $$
  `.execute(db);

  /* The entries of a lane whose time is over and that are not under way; for a lane that is halted. */
  await sql`
    create function expire_entries(p_lane_id integer, p_fence integer) returns integer language plpgsql as $$
    declare
      lane lanes%rowtype;
      expired integer;
    begin
      select * into lane from lanes where id = p_lane_id and fence = p_fence for no key update;
      if not found then return null; end if;
      with ended as (
        update message_entries e set outcome = (case when doubts > 0 then 'unknown' else 'expired' end)::delivery_outcome,
          finished_at = clock_timestamp()
        where e.lane_id = p_lane_id and e.position >= lane.settled and e.outcome is null and e.expires_at <= clock_timestamp()
          and not e.dispatched and (e.not_before is not null or e.position >= lane.horizon)
        returning e.lane_id, e.message_id, e.outcome, e.reason, e.doubts
      ),
      counted as (
        select count_ended(array_agg(lane_id), array_agg(message_id), array_agg(outcome), array_agg(reason), array_agg(doubts > 0))
        from ended having count(*) > 0
      )
      select count(*) into expired from ended left join counted on true;
      return expired;
    end
    $$
  `.execute(db);
}

/**
 * A statement that is planned while a week is new and empty reads the whole table, and its plan is kept until the week is analyzed: at some
 * thousand messages a second that is too late. The functions on the path of every message may take nothing but indexes.
 */
async function findAlongKeys(db: Kysely<unknown>): Promise<void> {
  /* By position: entries without an outcome from p_from on, and those at p_positions; at least one row, which brings the lane's state. */
  await sql`
    create function read_lane(p_lane_id integer, p_from bigint, p_limit integer, p_positions bigint[])
    returns table (
      changes integer, next_position bigint, read_at_ms text, "position" bigint, message_id uuid, device_id bigint, expires_at timestamptz,
      attempts smallint, excused smallint, doubts smallint, refused_at timestamptz, not_before timestamptz, reason text,
      device_token text, apns_environment text, platform text, message jsonb, in_doubt_policy text
    ) language plpgsql stable rows 20 as $$
    begin
      return query
        select l.changes, n.next_position, (extract(epoch from statement_timestamp()) * 1000)::text, e.position, e.message_id, e.device_id,
          e.expires_at, e.attempts, e.excused, e.doubts, e.refused_at, e.not_before, e.reason,
          d.device_token, d.apns_environment, d.platform, m.message, m.in_doubt_policy
        from lanes l
        join lane_ends n on n.lane_id = l.id
        left join lateral (
          (select * from message_entries f where f.lane_id = p_lane_id and f.position >= p_from and f.outcome is null
            order by f.position limit p_limit)
          union all
          select * from message_entries f
            where f.lane_id = p_lane_id and f.position = any (p_positions) and f.position < p_from and f.outcome is null
        ) e on true
        left join messages m on m.id = e.message_id
        left join devices d on d.id = e.device_id and d.provider = l.provider and d.retired_at is null and d.device_token is not null
        where l.id = p_lane_id
        order by e.position;
    end
    $$
  `.execute(db);
  await sql`
    create function find_pending_messages(p_ids uuid[]) returns setof uuid language plpgsql stable as $$
    begin
      return query select asked.id from unnest(p_ids) as asked (id)
        where exists (
          select from messages m cross join unnest(m.device_ids) as said (device_id)
          join message_entries e on e.device_id = said.device_id and e.message_id = m.id
          where m.id = asked.id and e.outcome is null
        );
    end
    $$
  `.execute(db);
  const names = [
    ...['read_lane', 'find_pending_messages', 'claim_lane', 'reserve_lane_window', 'record_entries', 'expire_entries'],
    ...['cancel_message'],
  ];
  for (const name of names) {
    for (const way of ['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) {
      await sql.raw(`alter function ${name} set ${way} = off`).execute(db);
    }
  }
}

async function dropOldWeeks(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function drop_message_weeks(finished_before timestamptz) returns setof text language plpgsql as $$
    declare
      name text;
      starts_at timestamp;
      has_pending boolean;
    begin
      perform pg_advisory_xact_lock(hashtext('create_message_partitions'));
      for name in
        select substr(c.relname, 17) from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'message_entries'::regclass and c.relname ~ '^message_entries_[0-9_]+$' order by 1
      loop
        starts_at := to_date(name, 'YYYY_MM_DD');
        continue when starts_at + interval '7 days' > finished_before at time zone 'UTC';
        execute format('select exists (select from %I where outcome is null)', 'message_entries_' || name) into has_pending;
        continue when has_pending;
        execute format('drop table %I', 'message_entries_' || name);
        execute format('drop table %I', 'messages_' || name);
        return next name;
      end loop;
      -- Few have a key, and it is of use for as long as somebody may repeat the request.
      delete from message_keys where message_id < uuid_v7_floor(finished_before);
    end
    $$
  `.execute(db);
}

/** As in 0009; nearly every device is in a batch of the provider that it has now, and each look at another reads a batch's array in vain. */
async function lookAtOwnProviderFirst(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function device_place(p_notification_id uuid, p_device_id bigint, out batch_seq integer, out "position" integer)
    returns setof record language plpgsql stable rows 1 as $$
    declare
      own text := (select provider from devices where id = p_device_id);
      last_provider text;
      candidate record;
      offsets integer[];
    begin
      loop
        if last_provider is null and own is not null then
          select provider, seq, first_device_id, device_offsets into candidate from batches
            where notification_id = p_notification_id and provider = own and first_device_id <= p_device_id
            order by first_device_id desc limit 1;
          last_provider := '';
          continue when not found;
        else
          select provider, seq, first_device_id, device_offsets into candidate from batches
            where notification_id = p_notification_id and provider > coalesce(last_provider, '') and provider is distinct from own
              and first_device_id <= p_device_id
            order by provider, first_device_id desc limit 1;
          exit when not found;
          last_provider := candidate.provider;
        end if;
        -- Read once, not for every use of it.
        offsets := candidate.device_offsets;
        "position" := width_bucket(least(p_device_id - candidate.first_device_id, 2147483647)::integer, offsets) - 1;
        if offsets["position" + 1] = p_device_id - candidate.first_device_id then
          batch_seq := candidate.seq;
          return next;
          return;
        end if;
      end loop;
    end
    $$
  `.execute(db);
}
