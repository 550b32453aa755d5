import { type Kysely, sql } from 'kysely';

/**
 * A chunk of outcomes is one statement, with what it defers and retires: nearly every chunk of a large send has some, and in a transaction
 * of five round trips the next window waited for the batch's row. The batch is changed once for a statement, not once for each group.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await recordGroupsTogether(db);
  await storeWhatElseBecameOfAChunk(db);
}

/**
 * In the trigger as in `0009`, so that it holds for whoever inserts; for each statement. One on each partition, too, as an insert into a
 * partition by its name is none into the table.
 */
async function recordGroupsTogether(db: Kysely<unknown>): Promise<void> {
  const counts = outcomes.map(
    (outcome) => `sum(bit_count(positions)) filter (where outcome = '${outcome}') as ${outcome}`,
  );
  const added = outcomes.map((outcome) => `${outcome} = ${outcome} + coalesce(batch.${outcome}, 0)`);
  await sql
    .raw(`
    create function record_inserted_groups() returns trigger language plpgsql as $$
    declare
      batch record;
      g record;
      bits bit varying;
      is_found boolean;
    begin
      for batch in
        select notification_id, batch_seq, ${counts.join(', ')} from inserted group by 1, 2 order by 1, 2
      loop
        -- A second transaction waits here, and then sees the bitmap as the first left it.
        select recorded into bits from batches
          where notification_id = batch.notification_id and seq = batch.batch_seq for no key update;
        is_found := found;
        -- A batch that is being carried over has no bitmap yet: its groups are counted by carry_batch_over.
        continue when is_found and bits is null;
        for g in
          select positions, first_position + 1 as at, length(positions) as span from inserted
          where notification_id = batch.notification_id and batch_seq = batch.batch_seq
        loop
          if not is_found or g.at + g.span - 1 > length(bits)
            or bit_count(substring(bits from g.at for g.span) & g.positions) > 0 then
            raise unique_violation using
              message = format('a device of batch %s of notification %s has its outcome already, or there is no such device',
                batch.batch_seq, batch.notification_id),
              table = 'delivery_groups', constraint = 'delivery_groups_one_outcome';
          end if;
          bits := overlay(bits placing substring(bits from g.at for g.span) | g.positions from g.at for g.span);
        end loop;
        update batches set recorded = bits, ${added.join(', ')},
          finished_at = case when bit_count(bits) = size then clock_timestamp() end
          where notification_id = batch.notification_id and seq = batch.batch_seq;
      end loop;
      return null;
    end
    $$
  `)
    .execute(db);
  await sql`
    create procedure count_groups_of(groups text) language plpgsql as $$
    begin
      execute format('create trigger record_inserted_groups after insert on %s referencing new table as inserted
        for each statement execute function record_inserted_groups()', groups);
    end
    $$
  `.execute(db);
  await sql`drop trigger record_group on delivery_groups`.execute(db);
  // Where rows are still to be carried over, forget_rows makes the function anew.
  await sql`drop function record_group()`.execute(db);
  await sql`call count_groups_of('delivery_groups')`.execute(db);
  await sql`
    do $$
    declare
      partition regclass;
    begin
      for partition in select inhrelid from pg_inherits where inhparent = 'delivery_groups'::regclass loop
        call count_groups_of(partition::text);
      end loop;
    end
    $$
  `.execute(db);
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
      if to_regclass(name) is null then
        execute format('create table %I (like delivery_groups including all)', name);
        call count_groups_of(name);
      end if;
      execute format('alter table delivery_groups attach partition %I for values from (%L) to (%L)', name,
        uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC'));
    end
    $$
  `.execute(db);
}

async function storeWhatElseBecameOfAChunk(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function store_deferrals(p_notification_id uuid, p_seq integer, p_deferrals jsonb) returns void language plpgsql as $$
    begin
      insert into deferrals (notification_id, batch_seq, device_id, not_before, attempts, excused, doubts, refused_at, reason,
          http_status, dispatched)
        select p_notification_id, p_seq, d.*, false
        from jsonb_to_recordset(p_deferrals) as d (device_id bigint, not_before timestamptz, attempts smallint, excused smallint,
          doubts smallint, refused_at timestamptz, reason text, http_status smallint)
        on conflict (notification_id, device_id) do update set
          not_before = excluded.not_before, attempts = excluded.attempts, excused = excluded.excused, doubts = excluded.doubts,
          refused_at = excluded.refused_at, reason = excluded.reason, http_status = excluded.http_status, dispatched = false;
    end
    $$
  `.execute(db);
  // Locked in the order of id, as every other writer of many devices does, so that two of them cannot wait for each other. In one
  // UPDATE, as PostgreSQL reads the table's CHECKs anew for each.
  await sql`
    create function retire_devices(p_retirements jsonb) returns void language plpgsql
      -- Along the primary key, whatever the table's statistics say.
      set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
    begin
      with dead as (
        select d.id, r.reason
        from jsonb_to_recordset(p_retirements) as r (device_id bigint, device_token text, invalid_at timestamptz, reason text)
        join devices d on d.id = r.device_id and d.device_token = r.device_token
          and d.retired_at is null and d.registered_at <= r.invalid_at
        order by d.id
        for update of d
      )
      update devices set retired_at = now(), retired_reason = dead.reason, updated_at = now() from dead where devices.id = dead.id;
    end
    $$
  `.execute(db);
  await sql`
    create function record_chunk(
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
      p_provider_message_ids text[],
      p_deferrals jsonb,
      p_no_longer_deferred bigint[],
      p_retirements jsonb
    ) returns boolean language plpgsql as $$
    declare
      is_finished boolean := record_groups(p_notification_id, p_seq, p_fence, p_first_positions, p_positions, p_outcomes,
        p_http_statuses, p_attempts, p_in_doubt, p_reasons, p_provider_message_ids);
    begin
      if is_finished is null then return null; end if;
      if p_deferrals is not null then perform store_deferrals(p_notification_id, p_seq, p_deferrals); end if;
      if p_no_longer_deferred is not null then
        delete from deferrals where notification_id = p_notification_id and device_id = any (p_no_longer_deferred);
      end if;
      if p_retirements is not null then perform retire_devices(p_retirements); end if;
      return is_finished;
    end
    $$
  `.execute(db);
}

const outcomes = ['accepted', 'rejected', 'unregistered', 'expired', 'failed', 'skipped', 'cancelled', 'unknown'];
