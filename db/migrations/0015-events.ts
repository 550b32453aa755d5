import { type Kysely, sql } from 'kysely';

/**
 * What apps say of a message after it arrived: received, opened, dismissed, or a word of their own. A device is counted once for each
 * send and type, by a bit for each position of a batch's frozen array or of a message's devices. Both tables by months of the send's
 * UUID v7, so that old ones are dropped as partitions.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await createTables(db);
  await makeAndDropMonths(db);
  await recordEvents(db);
}

async function createTables(db: Kysely<unknown>): Promise<void> {
  // A batch is cut into parts of 8 192 positions: a row of a kilobyte is changed in its place, and never moved out of the table.
  await sql`
    create table event_devices (
      app_id bigint not null,
      send_id uuid not null,
      batch_seq integer not null,
      part integer not null,
      type text not null,
      devices bit varying not null,
      constraint event_devices_pkey primary key (app_id, send_id, batch_seq, part, type)
    ) partition by range (send_id)
  `.execute(db);
  await sql`alter table event_devices alter column devices set storage plain`.execute(db);
  await sql`
    create table event_counts (
      app_id bigint not null,
      send_id uuid not null,
      variant text not null default '',
      type text not null,
      hour timestamptz not null,
      events bigint not null,
      devices bigint not null,
      constraint event_counts_pkey primary key (app_id, send_id, hour, type, variant),
      constraint event_counts_devices_check check (0 <= devices and devices <= events)
    ) partition by range (send_id)
  `.execute(db);
  await sql`
    create table event_types (
      app_id bigint not null,
      type text not null,
      constraint event_types_pkey primary key (app_id, type),
      constraint event_types_app_fkey foreign key (app_id) references apps (id),
      constraint event_types_type_check check (type ~ '^[a-z][a-z0-9_.]{0,39}$')
    )
  `.execute(db);
}

async function makeAndDropMonths(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function create_event_partitions(instant timestamptz) returns void language plpgsql as $$
    declare
      starts_at timestamp := date_trunc('month', instant at time zone 'UTC');
      part text;
      name text;
    begin
      if to_regclass('event_counts_' || to_char(starts_at, 'YYYY_MM')) is not null then return; end if;
      -- Somebody may have made it while this one waited for the lock.
      perform pg_advisory_xact_lock(hashtext('create_event_partitions'));
      foreach part in array array['event_devices', 'event_counts'] loop
        name := part || '_' || to_char(starts_at, 'YYYY_MM');
        continue when to_regclass(name) is not null;
        -- Attached, not created as a partition; see 0005.
        execute format('create table %I (like %I including all) with (fillfactor = 50)', name, part);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', part, name,
          uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC'));
      end loop;
    end
    $$
  `.execute(db);
  // An old draft that was launched lately lies in an old month.
  await sql`
    create function drop_event_months(launched_before timestamptz) returns setof text language plpgsql as $$
    declare
      name text;
      starts_at timestamp;
    begin
      perform pg_advisory_xact_lock(hashtext('create_event_partitions'));
      for name in
        select substr(c.relname, 14) from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'event_counts'::regclass and c.relname ~ '^event_counts_[0-9]{4,}_[0-9]{2}$' order by 1
      loop
        starts_at := to_date(name, 'YYYY_MM');
        continue when starts_at + interval '1 month' > launched_before at time zone 'UTC' or exists (
          select from notifications
          where id >= uuid_v7_floor(starts_at at time zone 'UTC')
            and id < uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC') and launched_at >= launched_before
        );
        execute format('drop table %I', 'event_devices_' || name);
        execute format('drop table %I', 'event_counts_' || name);
        return next name;
      end loop;
    end
    $$
  `.execute(db);
}

/**
 * Any number of events in one transaction. `p_send_ids`: notifications and messages, each of an app; `p_of`: for each event, which of
 * them it is of, from 1; `p_instants`: Unix milliseconds.
 * Answers a digit for each event, in order: 0 unknown, 1 new, 2 told before, 3 the app has as many types of its own as it may have.
 *
 * Locks are taken in one order by all: types, devices along their key, counts along theirs.
 */
async function recordEvents(db: Kysely<unknown>): Promise<void> {
  // One after the other along the index of `batches`, however many a send has; a blank between two.
  await sql`
    create function providers_of_batches(p_notification_id uuid) returns text language sql stable as $$
      with recursive found (provider) as (
        (select provider from batches where notification_id = p_notification_id order by provider limit 1)
        union all
        select (
          select b.provider from batches b where b.notification_id = p_notification_id and b.provider > found.provider
          order by b.provider limit 1
        ) from found where provider is not null
      )
      select string_agg(provider, ' ') from found
    $$
  `.execute(db);
  await sql`
    create function record_events(
      p_app_ids bigint[], p_send_ids uuid[], p_of integer[], p_devices text[], p_types text[], p_instants bigint[]
    ) returns text language plpgsql as $$
    declare
      part_size constant integer := 8192;
      max_types constant integer := 20;
      usual_types constant text[] := array['received', 'opened', 'dismissed'];
      answers integer[] := array_fill(0, array[cardinality(p_of)]);
      -- Of each send; null: there is none.
      started_at timestamptz[];
      is_message boolean[];
      -- Of each send, those that it has batches of: a device may have had another when they were made.
      providers text[];
      -- Of each event: a phone's clock may be wrong, but nothing was told of a send before it began, or will be told.
      instants timestamptz[];
      app bigint;
      month timestamptz;
      own record;
      g record;
      seen bit varying;
      is_stored boolean;
      has_new boolean;
      at integer;
      told jsonb;
    begin
      -- A deletion of the app waits for it, and nothing comes after.
      for app in select distinct id from unnest(p_app_ids) id order by 1 loop
        perform pg_advisory_xact_lock_shared(hashtextextended(format('events %s', app), 0));
      end loop;

      select array_agg(coalesce(n.launched_at, m.created_at) order by s.ordinal), array_agg(n.launched_at is null order by s.ordinal)
        into started_at, is_message
        from unnest(p_app_ids, p_send_ids) with ordinality as s (app_id, id, ordinal)
        left join lateral (select id from apps where id = s.app_id and deletion is null limit 1) a on true
        left join lateral (
          select launched_at from notifications where id = s.id and app_id = a.id and launched_at is not null limit 1
        ) n on true
        left join lateral (
          select created_at from messages where id = s.id and app_id = a.id and n.launched_at is null limit 1
        ) m on true;

      select array_agg(case when not is_message[s.ordinal] then providers_of_batches(s.id) end order by s.ordinal) into providers
        from unnest(p_send_ids) with ordinality as s (id, ordinal);

      select array_agg(least(greatest(to_timestamp(e.instant / 1000.0), started_at[e.of]), now()) order by e.ordinal) into instants
        from unnest(p_of, p_instants) with ordinality as e (of, instant, ordinal);

      for month in
        select distinct date_trunc('month', uuid_v7_instant(p_send_ids[i]), 'UTC') from generate_subscripts(p_send_ids, 1) i
        where started_at[i] is not null order by 1
      loop
        perform create_event_partitions(month);
      end loop;

      if not p_types <@ usual_types then
        for own in
          select distinct p_app_ids[e.of] as app_id, e.type from unnest(p_of, p_types) as e (of, type)
          where e.type <> all (usual_types) and started_at[e.of] is not null
            and not exists (select from event_types t where t.app_id = p_app_ids[e.of] and t.type = e.type)
          order by 1, 2
        loop
          perform pg_advisory_xact_lock(hashtextextended(format('event types %s', own.app_id), 0));
          insert into event_types (app_id, type)
            select own.app_id, own.type where (select count(*) from event_types t where t.app_id = own.app_id) < max_types
            on conflict do nothing;
        end loop;
        -- Whatever they are of: whether a send or device is known is not told by it.
        for at in
          select e.ordinal from unnest(p_of, p_types) with ordinality as e (of, type, ordinal)
          where e.type <> all (usual_types)
            and not exists (select from event_types t where t.app_id = p_app_ids[e.of] and t.type = e.type)
            and (select count(*) from event_types t where t.app_id = p_app_ids[e.of]) >= max_types
        loop
          answers[at] := 3;
        end loop;
      end if;

      for g in
        with event as materialized (
          select e.ordinal, e.of, e.type, d.id as device_id
          from unnest(p_of, p_devices, p_types, answers) with ordinality as e (of, device, type, answer, ordinal)
          cross join lateral (
            select id from devices where app_id = p_app_ids[e.of] and external_id = e.device limit 1
          ) d
          where e.answer = 0 and started_at[e.of] is not null
        ),
        known as (
          -- The array of a batch is read once, and kept in memory for all devices that are looked for in it.
          select member.ordinal, visited.of, member.type, visited.seq, batch.size, place.position
          from (
            select e.of, b.seq, array_agg(e.ordinal) as ordinals, array_agg(e.type) as types, array_agg(e.device_id) as device_ids
            from event e
            cross join lateral unnest(string_to_array(providers[e.of], ' ')) as p (provider)
            cross join lateral (
              select seq from batches
              where notification_id = p_send_ids[e.of] and provider = p.provider and first_device_id <= e.device_id
              order by first_device_id desc limit 1
            ) b
            group by e.of, b.seq
          ) as visited
          cross join lateral (
            select size, first_device_id, device_offsets || '{}'::integer[] as offsets from batches
            where notification_id = p_send_ids[visited.of] and seq = visited.seq limit 1
          ) batch
          cross join lateral unnest(visited.ordinals, visited.types, visited.device_ids) as member (ordinal, type, device_id)
          cross join lateral (
            select sought, width_bucket(sought, batch.offsets) - 1 as position
            from (select least(member.device_id - batch.first_device_id, 2147483647)::integer as sought) o
          ) place
          where batch.offsets[place.position + 1] = place.sought
          union all
          select e.ordinal, e.of, e.type, 0, m.size, m.position
          from event e
          cross join lateral (
            select array_position(device_ids, e.device_id) - 1 as position, cardinality(device_ids) as size from messages
            where id = p_send_ids[e.of] and is_message[e.of] limit 1
          ) m
          where m.position is not null
        )
        select p_app_ids[of] as app_id, p_send_ids[of] as send_id, seq, position / part_size as part, type,
          least(size - position / part_size * part_size, part_size) as size,
          array_agg(ordinal order by ordinal) as ordinals, array_agg(position % part_size order by ordinal) as positions
        from known group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5
      loop
        loop
          select t.devices into seen from event_devices t
            where t.app_id = g.app_id and t.send_id = g.send_id and t.batch_seq = g.seq and t.part = g.part and t.type = g.type
            for update;
          is_stored := found;
          if not is_stored then seen := repeat('0', g.size)::bit varying; end if;
          has_new := false;
          for i in 1..cardinality(g.ordinals) loop
            if get_bit(seen, g.positions[i]) = 0 then
              seen := set_bit(seen, g.positions[i], 1);
              answers[g.ordinals[i]] := 1;
              has_new := true;
            else
              answers[g.ordinals[i]] := 2;
            end if;
          end loop;
          exit when not has_new;
          if is_stored then
            update event_devices t set devices = seen
              where t.app_id = g.app_id and t.send_id = g.send_id and t.batch_seq = g.seq and t.part = g.part and t.type = g.type;
            exit;
          end if;
          insert into event_devices (app_id, send_id, batch_seq, part, type, devices)
            values (g.app_id, g.send_id, g.seq, g.part, g.type, seen) on conflict do nothing;
          -- Otherwise somebody was faster, and it has to be looked at again.
          exit when found;
        end loop;
      end loop;

      insert into event_counts (app_id, send_id, type, hour, events, devices)
        select p_app_ids[e.of], p_send_ids[e.of], e.type, date_trunc('hour', e.instant, 'UTC'), count(*),
          count(*) filter (where e.answer = 1)
        from unnest(p_of, p_types, instants, answers) as e (of, type, instant, answer)
        where e.answer in (1, 2)
        group by 1, 2, 3, 4 order by 1, 2, 4, 3
        on conflict on constraint event_counts_pkey do update
          set events = event_counts.events + excluded.events, devices = event_counts.devices + excluded.devices;

      for app in
        select distinct p_app_ids[e.of] from unnest(p_of, answers) as e (of, answer) where e.answer = 1 order by 1
      loop
        continue when not webhook_wanted(app, 'events.received');
        select jsonb_agg(jsonb_build_object('type', e.type, 'nid', p_send_ids[e.of], 'device', e.device,
            'at', iso_instant(e.instant)) order by e.ordinal)
          into told
          from unnest(p_of, p_devices, p_types, instants, answers) with ordinality as e (of, device, type, instant, answer, ordinal)
          where e.answer = 1 and p_app_ids[e.of] = app;
        perform feed_webhooks(app, 'events.received', null, jsonb_build_object('events', told));
      end loop;
      return array_to_string(answers, '');
    end
    $$
  `.execute(db);
  for (const way of ['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) {
    await sql.raw(`alter function record_events set ${way} = off`).execute(db);
  }
}
