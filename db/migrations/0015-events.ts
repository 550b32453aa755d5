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
      -- Of each event: a phone's clock may be wrong, but nothing was told of a send before it began, or will be told.
      instants timestamptz[];
      app bigint;
      month timestamptz;
      own record;
      g record;
      seen bit varying;
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
          select e.ordinal, e.of, e.type, d.id as device_id, b.seq, m.position, m.size
          from unnest(p_of, p_devices, p_types, answers) with ordinality as e (of, device, type, answer, ordinal)
          cross join lateral (
            select id, provider from devices where app_id = p_app_ids[e.of] and external_id = e.device limit 1
          ) d
          left join lateral (
            select seq from batches
            where notification_id = p_send_ids[e.of] and provider = d.provider and first_device_id <= d.id and not is_message[e.of]
            order by first_device_id desc limit 1
          ) b on true
          left join lateral (
            select array_position(device_ids, d.id) - 1 as position, cardinality(device_ids) as size from messages
            where id = p_send_ids[e.of] and is_message[e.of] limit 1
          ) m on true
          where e.answer = 0 and started_at[e.of] is not null
        ),
        placed as materialized (
          -- Each array is read once, and kept in memory for all devices that are looked for in it.
          select member.ordinal, batch.of, member.type, batch.seq, batch.size, member.device_id,
            case when stored.offsets[place.position + 1] = place.device_offset then place.position end as position
          from (
            select of, seq, array_agg(ordinal) as ordinals, array_agg(type) as types, array_agg(device_id) as device_ids
            from event where seq is not null group by of, seq
          ) as batch_events
          cross join lateral (
            select batch_events.of, b.seq, b.size, b.first_device_id from batches b
            where b.notification_id = p_send_ids[batch_events.of] and b.seq = batch_events.seq limit 1
          ) batch
          cross join lateral (
            select b.device_offsets || '{}'::integer[] as offsets from batches b
            where b.notification_id = p_send_ids[batch.of] and b.seq = batch.seq limit 1
          ) stored
          cross join lateral unnest(batch_events.ordinals, batch_events.types, batch_events.device_ids) as member (ordinal, type, device_id)
          cross join lateral (
            select o.device_offset, width_bucket(o.device_offset, stored.offsets) - 1 as position
            from (select least(member.device_id - batch.first_device_id, 2147483647)::integer as device_offset) o
          ) place
        ),
        known as (
          select ordinal, of, type, seq, size, position from placed where position is not null
          union all
          -- Of another provider than the device has by now.
          select e.ordinal, e.of, e.type, place.batch_seq, b.size, place.position
          from (
            select ordinal, of, type, device_id from placed where position is null
            union all
            select ordinal, of, type, device_id from event where seq is null and not is_message[of]
          ) e
          cross join lateral device_place(p_send_ids[e.of], e.device_id) as place
          cross join lateral (
            select size from batches where notification_id = p_send_ids[e.of] and seq = place.batch_seq limit 1
          ) b
          union all
          select ordinal, of, type, 0, size, position from event where position is not null
        )
        select p_app_ids[of] as app_id, p_send_ids[of] as send_id, seq, position / part_size as part, type,
          least(size - position / part_size * part_size, part_size) as size,
          array_agg(ordinal order by ordinal) as ordinals, array_agg(position % part_size order by ordinal) as positions
        from known group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5
      loop
        seen := null;
        loop
          select t.devices into seen from event_devices t
            where t.app_id = g.app_id and t.send_id = g.send_id and t.batch_seq = g.seq and t.part = g.part and t.type = g.type
            for update;
          exit when found;
          insert into event_devices (app_id, send_id, batch_seq, part, type, devices)
            values (g.app_id, g.send_id, g.seq, g.part, g.type, repeat('0', g.size)::bit varying) on conflict do nothing;
        end loop;
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
        if has_new then
          update event_devices t set devices = seen
            where t.app_id = g.app_id and t.send_id = g.send_id and t.batch_seq = g.seq and t.part = g.part and t.type = g.type;
        end if;
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
