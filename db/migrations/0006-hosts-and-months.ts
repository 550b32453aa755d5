import { type Kysely, sql } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await makePartitionsOnDemand(db);
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
  // attaching an empty table holds up nobody (PostgreSQL manual, ALTER TABLE, ATTACH PARTITION). A month that was detached and
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
