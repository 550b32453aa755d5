import { type Kysely, sql } from 'kysely';

/**
 * Outcomes by group instead of by device: the devices of a batch that ended alike and were recorded together are one row, with a
 * bit for each. "One outcome for a device" is held by a bitmap on the batch, as hard as the primary key of a row for each device.
 *
 * What is stored as rows is carried over by `carry_batch_over`: here for sends that are not finished, for their books must be exact
 * from the first second on, and for all others in steps of a few batches after this migration (`db/carry-rows-over.ts`).
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await setRowsAside(db);
  await numberDevicesInBatches(db);
  await makeGroups(db);
  await makePartitions(db);
  await findDevices(db);
  await carryOver(db);
}

/**
 * A worker of the release before, that still runs, must neither write rows nor give up: it is told that the database is away, keeps its
 * answers in memory and goes on trying until it is replaced.
 */
async function setRowsAside(db: Kysely<unknown>): Promise<void> {
  await sql`alter table deliveries rename to delivery_rows`.execute(db);
  await sql`
    create function refuse_old_worker() returns trigger language plpgsql as $$
    begin
      raise exception using errcode = '57P03', message = 'this worker is older than the database: start it with the new release';
    end
    $$
  `.execute(db);
  await sql`
    create or replace function rehearse_recording(p_notification_id uuid, p_seq integer) returns void language plpgsql as $$
    begin
      raise exception using errcode = '57P03', message = 'this worker is older than the database: start it with the new release';
    end
    $$
  `.execute(db);
}

/**
 * A batch's devices are ids relative to its first: half the bytes, and stored without compression, so that one device is found in
 * 0.03 ms where unpacking ten thousand ids took 0.7. A page of the plan spans fewer than 2^31 ids.
 */
async function numberDevicesInBatches(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table batches
      add column first_device_id bigint,
      add column device_offsets integer[],
      add column recorded bit varying,
      alter column device_offsets set storage external,
      alter column device_ids drop not null,
      drop constraint batches_size_check,
      drop constraint batches_counts_check,
      add constraint batches_size_check check (size > 0 and size = length(recorded)),
      add constraint batches_counts_check check (
        accepted + rejected + unregistered + expired + failed + skipped + cancelled + unknown = bit_count(recorded)
      ),
      add constraint batches_finished_is_recorded_check check (recorded is not null or finished_at is not null)
        not valid
  `.execute(db);
  // Every window and every recording changes the row: with room on its page that costs no index entry, and the bitmap is not packed
  // and unpacked again each time.
  await sql`alter table batches set (fillfactor = 40, toast_tuple_target = 8160)`.execute(db);
  // Not a CHECK: that would read all devices again with every window.
  await sql`
    create function check_batch_devices() returns trigger language plpgsql as $$
    begin
      raise check_violation using message = format('batch %s of notification %s has not as many devices as its size says',
        new.seq, new.notification_id), table = 'batches', constraint = 'batches_devices_check';
    end
    $$
  `.execute(db);
  await sql`
    create trigger check_batch_devices before insert or update of device_offsets, size on batches for each row
      when (new.size <> cardinality(new.device_offsets)) execute function check_batch_devices()
  `.execute(db);
  await sql`create index batches_devices_idx on batches (notification_id, provider, first_device_id desc)`.execute(db);
}

async function makeGroups(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table delivery_groups (
      notification_id uuid not null,
      finished_at timestamptz not null default now(),
      batch_seq integer not null,
      first_position integer not null,
      outcome delivery_outcome not null,
      http_status smallint,
      attempts smallint not null,
      in_doubt boolean not null,
      reason text,
      positions bit varying not null,
      provider_message_ids text,
      constraint delivery_groups_pkey primary key (notification_id, batch_seq, first_position),
      constraint delivery_groups_positions_check check (first_position >= 0 and get_bit(positions, 0) = 1)
    ) partition by range (notification_id)
  `.execute(db);

  await sql.raw(`create function record_group() ${recordGroup('carrying')}`).execute(db);
  await sql`
    create trigger record_group after insert on delivery_groups for each row execute function record_group()
  `.execute(db);

  // Null: the fence is not that of the batch, or the batch is finished. Otherwise whether it is finished now.
  await sql`
    create function record_groups(
      p_notification_id uuid,
      p_seq integer,
      p_fence integer,
      p_first_positions integer[],
      p_positions bit varying[],
      p_outcomes delivery_outcome[],
      p_http_statuses smallint[],
      p_attempts smallint[],
      p_in_doubt boolean[],
      p_reasons text[],
      p_provider_message_ids text[]
    ) returns boolean language plpgsql as $$
    declare
      is_finished boolean;
    begin
      perform from batches where notification_id = p_notification_id and seq = p_seq and fence = p_fence and finished_at is null
        for no key update;
      if not found then return null; end if;
      insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, http_status, attempts, in_doubt,
          reason, provider_message_ids)
        select p_notification_id, p_seq, g.* from unnest(p_first_positions, p_positions, p_outcomes, p_http_statuses, p_attempts,
          p_in_doubt, p_reasons, p_provider_message_ids) as g;
      select finished_at is not null into is_finished from batches where notification_id = p_notification_id and seq = p_seq;
      return is_finished;
    end
    $$
  `.execute(db);
}

/** As in 0005, for groups. */
async function makePartitions(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function create_delivery_partition(instant timestamptz) returns void language plpgsql as $$
    declare
      starts_at timestamp := date_trunc('month', instant at time zone 'UTC');
      name text := 'delivery_groups_' || to_char(starts_at, 'YYYY_MM');
    begin
      for i in 1..2 loop
        if exists (
          select from pg_inherits where inhparent = 'delivery_groups'::regclass and inhrelid = to_regclass(name)
        ) then return; end if;
        -- Somebody may have made it while this one waited for the lock.
        perform pg_advisory_xact_lock(hashtext('create_delivery_partitions'));
      end loop;
      if to_regclass(name) is null then execute format('create table %I (like delivery_groups including all)', name); end if;
      execute format('alter table delivery_groups attach partition %I for values from (%L) to (%L)', name,
        uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC'));
    end
    $$
  `.execute(db);
  await sql`
    create function rehearse_groups(p_notification_id uuid, p_seq integer) returns void language plpgsql as $$
    begin
      perform create_delivery_partition(uuid_v7_instant(p_notification_id));
      begin
        -- With the row locked: a zombie may be recording this very device.
        insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, http_status, attempts, in_doubt)
          select notification_id, seq, position(B'0' in recorded) - 1, B'1', 'accepted', 200, 1, false
          from batches where notification_id = p_notification_id and seq = p_seq and finished_at is null
          for no key update;
        raise exception sqlstate 'CR001';
      exception when sqlstate 'CR001' then null;
      end;
    end
    $$
  `.execute(db);
  await sql`
    create or replace function drop_delivery_months(finished_before date) returns setof text language plpgsql as $$
    declare
      name text;
      starts_at timestamp;
    begin
      perform pg_advisory_xact_lock(hashtext('create_delivery_partitions'));
      for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'delivery_groups'::regclass and c.relname ~ '^delivery_groups_[0-9]{4,}_[0-9]{2}$' order by 1
      loop
        starts_at := to_date(substr(name, 17), 'YYYY_MM');
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

async function findDevices(db: Kysely<unknown>): Promise<void> {
  // A batch of each provider may cover the device's id: the last one that begins at or before it.
  await sql`
    create function device_place(p_notification_id uuid, p_device_id bigint, out batch_seq integer, out "position" integer)
    returns setof record language plpgsql stable rows 1 as $$
    declare
      candidate record;
      last_provider text := '';
      offsets integer[];
    begin
      loop
        select provider, seq, first_device_id, device_offsets into candidate from batches
          where notification_id = p_notification_id and provider > last_provider and first_device_id <= p_device_id
          order by provider, first_device_id desc limit 1;
        exit when not found;
        last_provider := candidate.provider;
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

/** A line for each device, for people with SQL: by notification, or by notification and batch. */
const unfolded = `
  select g.notification_id, g.batch_seq, member.position, b.first_device_id + member.device_offset as device_id, g.outcome, g.reason,
    g.http_status, nullif(member.provider_message_id, '') as provider_message_id, g.attempts, g.in_doubt, g.finished_at
  from delivery_groups g
  join batches b on b.notification_id = g.notification_id and b.seq = g.batch_seq
  cross join lateral (
    select array_agg(g.first_position + place.at::integer - 1 order by place.at) as positions,
      array_agg(place.device_offset order by place.at) as device_offsets
    from unnest(b.device_offsets[g.first_position + 1 : g.first_position + length(g.positions)])
      with ordinality as place (device_offset, at)
    where get_bit(g.positions, place.at::integer - 1) = 1
  ) as alike
  cross join lateral unnest(alike.positions, alike.device_offsets, string_to_array(g.provider_message_ids, ' '))
    as member (position, device_offset, provider_message_id)`;

async function carryOver(db: Kysely<unknown>): Promise<void> {
  // Until all is carried over, the view shows what still lies in rows, too; …
  await sql`
    create view deliveries as ${sql.raw(unfolded)}
    union all
    select r.notification_id, r.batch_seq, null, r.device_id, r.outcome, r.reason, r.http_status, r.provider_message_id, r.attempts,
      r.in_doubt, r.finished_at
    from delivery_rows r join batches b on b.notification_id = r.notification_id and b.seq = r.batch_seq
    where b.recorded is null
  `.execute(db);
  await sql`
    create trigger refuse_old_worker instead of insert on deliveries for each row execute function refuse_old_worker()
  `.execute(db);
  await sql`create index batches_rows_idx on batches (notification_id, seq) where recorded is null`.execute(db);

  // The groups must say what the rows said, or the step is taken back. A month of rows that was dropped leaves batches without groups,
  // as a month of groups does.
  await sql`
    create function carry_batch_over(p_notification_id uuid, p_seq integer) returns void language plpgsql
      -- Along the primary key, whatever the table's statistics say.
      set enable_nestloop = off set enable_seqscan = off as $$
    declare
      b batches%rowtype;
      ids bigint[];
      first_id bigint;
      last_id bigint;
      bits bit varying;
      counted record;
    begin
      select * into strict b from batches where notification_id = p_notification_id and seq = p_seq for update;
      if b.recorded is not null then return; end if;
      -- Unpacked once, not for every device.
      ids := b.device_ids;
      first_id := ids[1];
      last_id := ids[b.size];
      perform create_delivery_partition(uuid_v7_instant(p_notification_id));
      insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, http_status, attempts, in_doubt,
          reason, provider_message_ids, finished_at)
        select p_notification_id, p_seq, min(position), string_agg(repeat('0', gap) || '1', '' order by position)::bit varying,
          outcome, http_status, attempts, in_doubt, reason,
          case when count(provider_message_id) > 0 then
            string_agg(replace(coalesce(provider_message_id, ''), ' ', ''), ' ' order by position) end,
          finished_at
        from (
          select *, coalesce(position - lag(position) over alike - 1, 0) as gap
          from (
            -- Recorded together is what has one instant; a span of bits stays short.
            select r.*, (member.ordinal - 1)::integer as position, (member.ordinal - 1) / 4096 as part
            from unnest(ids) with ordinality as member (device_id, ordinal)
            join delivery_rows r on r.device_id = member.device_id
            where r.notification_id = p_notification_id and r.batch_seq = p_seq
              and r.device_id between first_id and last_id
          ) as placed
          window alike as (
            partition by outcome, http_status, attempts, in_doubt, reason, finished_at, part order by position
          )
        ) as spaced
        group by outcome, http_status, attempts, in_doubt, reason, finished_at, part;
      bits := repeat(case when found or b.finished_at is null then '0' else '1' end, b.size)::bit varying;
      if found then
        select ${sql.raw(
          outcomes
            .map((outcome) => `coalesce(sum(devices) filter (where outcome = '${outcome}'), 0)::integer as ${outcome}`)
            .join(', '),
        )}, bit_or(overlay(bits placing positions from first_position + 1)) as positions
          into counted from (
            select *, bit_count(positions) as devices from delivery_groups
            where notification_id = p_notification_id and batch_seq = p_seq
          ) as every_group;
        if (${sql.raw(outcomes.map((outcome) => `counted.${outcome}`).join(', '))})
          is distinct from (${sql.raw(outcomes.map((outcome) => `b.${outcome}`).join(', '))}) then
          raise exception 'batch % of notification %: its counts and its rows disagree', p_seq, p_notification_id;
        end if;
        bits := counted.positions;
      end if;
      update batches set recorded = bits, first_device_id = first_id,
          device_offsets = array(select (id - first_id)::integer from unnest(ids) as id), device_ids = null
        where notification_id = p_notification_id and seq = p_seq;
    end
    $$
  `.execute(db);
  await sql`
    select carry_batch_over(b.notification_id, b.seq)
    from batches b join notifications n on n.id = b.notification_id where n.finished_at is null
  `.execute(db);

  await sql`
    create function carry_rows_over(batches_at_once integer) returns integer language plpgsql as $$
    declare
      carried integer;
    begin
      select count(*) into carried from (
        select carry_batch_over(notification_id, seq) from (
          select notification_id, seq from batches where recorded is null order by notification_id desc, seq limit batches_at_once
        ) as next
      ) as done;
      return carried;
    end
    $$
  `.execute(db);

  // … and when nothing is left, nothing tells of them any more.
  await sql`
    create function forget_rows() returns void language plpgsql as $$
    begin
      create or replace view deliveries as ${sql.raw(unfolded)};
      create or replace function record_group() ${sql.raw(recordGroup('done'))};
      drop table delivery_rows;
      drop index batches_rows_idx;
      alter table batches
        drop column device_ids,
        drop constraint batches_finished_is_recorded_check,
        alter column first_device_id set not null,
        alter column device_offsets set not null,
        alter column recorded set not null;
      drop function carry_rows_over(integer);
      drop function carry_batch_over(uuid, integer);
      drop function forget_rows();
    end
    $$
  `.execute(db);
}

/**
 * By a trigger, so that it holds for whoever inserts: a sender, a zombie, a person with psql. The row lock makes a second transaction
 * wait and then look at the bitmap as the first left it. A batch that is being carried over has no bitmap yet: its groups are counted
 * by `carry_batch_over`.
 */
function recordGroup(stage: 'carrying' | 'done'): string {
  const added = outcomes.map(
    (outcome) => `${outcome} = ${outcome} + case new.outcome when '${outcome}' then devices else 0 end`,
  );
  const carried =
    'select from batches where notification_id = new.notification_id and seq = new.batch_seq and recorded is null';
  return `returns trigger language plpgsql as $body$
    declare
      devices integer := bit_count(new.positions);
      at integer := new.first_position + 1;
      span integer := length(new.positions);
    begin
      update batches set
        recorded = overlay(recorded placing substring(recorded from at for span) | new.positions from at for span),
        ${added.join(', ')},
        finished_at = case when bit_count(recorded) + devices = size then clock_timestamp() end
      where notification_id = new.notification_id and seq = new.batch_seq and at + span - 1 <= size
        and bit_count(substring(recorded from at for span) & new.positions) = 0;
      if not found ${stage === 'carrying' ? `and not exists (${carried})` : ''} then
        raise unique_violation using
          message = format('a device of batch %s of notification %s has its outcome already, or there is no such device',
            new.batch_seq, new.notification_id),
          table = 'delivery_groups', constraint = 'delivery_groups_one_outcome';
      end if;
      return null;
    end
    $body$`;
}

const outcomes = ['accepted', 'rejected', 'unregistered', 'expired', 'failed', 'skipped', 'cancelled', 'unknown'];
