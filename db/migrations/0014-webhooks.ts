import { type Kysely, sql } from 'kysely';

/**
 * Webhooks: what is told to other systems, and how far each was told. What happens is appended to `webhook_feed` in the transaction of the
 * change, and only where somebody wants to know it; a worker makes events of it, with a delivery for each webhook that wants one.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await createTables(db);
  await feed(db);
  await notificationsTell(db);
  await lanesTell(db);
  await devicesTell(db);
  await messagesTell(db);
  await dropOldWeeks(db);
}

async function createTables(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table webhooks (
      id uuid not null,
      app_id bigint not null,
      url text not null,
      types text[] not null,
      filter jsonb not null default '{}',
      secret_jwe text not null,
      previous_secret_jwe text,
      previous_until timestamptz,
      disabled_at timestamptz,
      disabled_reason text,
      failing_since timestamptz,
      failures integer not null default 0,
      last_error text,
      last_delivered_at timestamptz,
      blocked_until timestamptz not null default '-infinity',
      fence integer not null default 0,
      busy_until timestamptz not null default '-infinity',
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      constraint webhooks_pkey primary key (id),
      constraint webhooks_app_fkey foreign key (app_id) references apps (id),
      constraint webhooks_previous_check check ((previous_secret_jwe is null) = (previous_until is null)),
      constraint webhooks_disabled_check check ((disabled_at is null) = (disabled_reason is null))
    ) with (fillfactor = 50)
  `.execute(db);
  await sql`create index webhooks_app_idx on webhooks (app_id, id)`.execute(db);
  // A queue: rows stay for a second and are deleted one by one.
  await sql`
    create table webhook_feed (
      id bigint generated always as identity,
      app_id bigint not null,
      type text not null,
      subject text,
      data jsonb not null,
      at timestamptz not null default clock_timestamp(),
      constraint webhook_feed_pkey primary key (id)
    )
  `.execute(db);
  // By weeks of the event's UUID v7. Without foreign keys: what a webhook was told outlives it.
  await sql`
    create table webhook_events (
      id uuid not null,
      app_id bigint not null,
      type text not null,
      subject text,
      data jsonb not null,
      at timestamptz not null,
      constraint webhook_events_pkey primary key (id)
    ) partition by range (id)
  `.execute(db);
  await sql`create index webhook_events_app_idx on webhook_events (app_id, id)`.execute(db);
  // The order of what belongs to one subject. Not the id's: two workers have two clocks.
  await sql`create sequence webhook_deliveries_seq`.execute(db);
  await sql`
    create table webhook_deliveries (
      event_id uuid not null,
      webhook_id uuid not null,
      seq bigint not null default nextval('webhook_deliveries_seq'),
      subject text,
      state text not null default 'pending',
      attempts smallint not null default 0,
      next_at timestamptz not null default clock_timestamp(),
      last_attempt_at timestamptz,
      last_status smallint,
      last_error text,
      delivered_at timestamptz,
      constraint webhook_deliveries_pkey primary key (event_id, webhook_id),
      constraint webhook_deliveries_state_check check (state in ('pending', 'delivered', 'failed')),
      constraint webhook_deliveries_delivered_check check ((state = 'delivered') = (delivered_at is not null))
    ) partition by range (event_id)
  `.execute(db);
  await sql`create index webhook_deliveries_webhook_idx on webhook_deliveries (webhook_id, event_id)`.execute(db);
  await sql`
    create index webhook_deliveries_failed_idx on webhook_deliveries (webhook_id, event_id) where state = 'failed'
  `.execute(db);
  await sql`
    create index webhook_deliveries_due_idx on webhook_deliveries (webhook_id, next_at, seq) where state = 'pending'
  `.execute(db);
  await sql`
    create index webhook_deliveries_subject_idx on webhook_deliveries (webhook_id, subject, seq)
      where state = 'pending' and subject is not null
  `.execute(db);
}

async function feed(db: Kysely<unknown>): Promise<void> {
  /* Whether an enabled webhook of the app wants events of the type: for those to whom the event itself costs something to put together. */
  await sql`
    create function webhook_wanted(p_app_id bigint, p_type text) returns boolean language sql stable as $$
      select exists (select from webhooks where app_id = p_app_id and disabled_at is null and p_type = any (types))
    $$
  `.execute(db);
  /*
   * Appends to the outbox, in the transaction of the change that it tells of, where somebody wants to know it. Events of a subject are
   * delivered in the order of these calls, which the lock on its row keeps; null: of no order.
   */
  await sql`
    create function feed_webhooks(p_app_id bigint, p_type text, p_subject text, p_data jsonb) returns void language sql as $$
      insert into webhook_feed (app_id, type, subject, data)
        select p_app_id, p_type, p_subject, p_data where webhook_wanted(p_app_id, p_type)
    $$
  `.execute(db);
  await sql`
    create function iso_instant(instant timestamptz) returns text language sql immutable parallel safe as $$
      select to_char(instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
    $$
  `.execute(db);
}

/** Never the message: what a notification says is nobody's business but that of its app. */
async function notificationsTell(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function tell_of_notification() returns trigger language plpgsql as $$
    declare
      about jsonb := jsonb_build_object('notification_id', new.id, 'title', new.title);
      subject text := 'notification:' || new.id;
    begin
      if old.state is distinct from new.state then
        perform feed_webhooks(new.app_id, 'notification.state_changed', subject, about || jsonb_build_object(
          'from', old.state, 'to', new.state, 'scheduled_at', iso_instant(new.scheduled_at),
          'halt', case when new.halt_reason is not null then jsonb_build_object('reason', new.halt_reason, 'detail', new.halt_detail) end));
      end if;
      -- One that is cancelled has its totals only later.
      if old.finished_at is null and new.finished_at is not null then
        perform feed_webhooks(new.app_id, 'notification.finished', subject, about || jsonb_build_object(
          'state', new.state, 'audience', new.audience_size, 'outcomes', new.totals -> 'outcomes', 'in_doubt', new.totals -> 'inDoubt',
          'launched_at', iso_instant(new.launched_at), 'finished_at', iso_instant(new.finished_at)));
      end if;
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create trigger notifications_tell after update of state, finished_at on notifications for each row
      when (old.state is distinct from new.state or (old.finished_at is null and new.finished_at is not null))
      execute function tell_of_notification()
  `.execute(db);
}

async function lanesTell(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function tell_of_lane() returns trigger language plpgsql as $$
    begin
      perform feed_webhooks(new.app_id, case when new.halt_reason is null then 'messages.resumed' else 'messages.halted' end,
        format('lane:%s:%s', new.provider, new.number),
        jsonb_build_object('provider', new.provider, 'lane', new.number) || case when new.halt_reason is null
          then jsonb_build_object('halted_at', iso_instant(old.halted_at))
          else jsonb_build_object('reason', new.halt_reason, 'detail', new.halt_detail, 'halted_at', iso_instant(new.halted_at)) end);
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create trigger lanes_tell after update of halt_reason on lanes for each row
      when (old.halt_reason is distinct from new.halt_reason) execute function tell_of_lane()
  `.execute(db);
}

async function devicesTell(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function tell_of_device() returns trigger language plpgsql as $$
    declare
      type text := case when new.retired_at is null then 'devices.restored' else 'devices.retired' end;
    begin
      if not webhook_wanted(new.app_id, type) then return null; end if;
      perform feed_webhooks(new.app_id, type, null,
        jsonb_build_object('devices', jsonb_build_array(jsonb_build_object(
          'external_id', new.external_id, 'user_id', new.user_id, 'provider', new.provider,
          'reason', coalesce(new.retired_reason, old.retired_reason), 'at', iso_instant(clock_timestamp())))));
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create trigger devices_tell after update of retired_at on devices for each row
      when ((old.retired_at is null) <> (new.retired_at is null)) execute function tell_of_device()
  `.execute(db);
}

/** For each statement, as most entries end in windows: without a webhook it is one look into a small table. */
async function messagesTell(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function tell_of_messages() returns trigger language plpgsql as $$
    declare
      app bigint;
    begin
      for app in
        select distinct app_id from lanes where id = any (array(select distinct lane_id from changed where outcome is not null))
      loop
        continue when not webhook_wanted(app, 'messages.finished');
        perform feed_webhooks(app, 'messages.finished', null, jsonb_build_object('messages', (
          select jsonb_agg(jsonb_build_object('message_id', e.message_id, 'external_id', d.external_id, 'provider', l.provider,
              'outcome', e.outcome, 'reason', e.reason, 'http_status', e.http_status, 'attempts', e.attempts,
              'in_doubt', e.doubts > 0, 'finished_at', iso_instant(e.finished_at)) order by e.position)
            from changed e join lanes l on l.id = e.lane_id left join devices d on d.id = e.device_id
            where l.app_id = app and e.outcome is not null)));
      end loop;
      return null;
    end
    $$
  `.execute(db);
  // A second outcome is refused, so one that is there after a statement is new.
  await sql`
    create trigger message_entries_tell after update on message_entries referencing new table as changed
      for each statement execute function tell_of_messages()
  `.execute(db);
}

async function dropOldWeeks(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function create_webhook_partitions(instant timestamptz) returns void language plpgsql as $$
    declare
      starts_at timestamp := date_trunc('week', instant at time zone 'UTC');
      part text;
      name text;
    begin
      if to_regclass('webhook_deliveries_' || to_char(starts_at, 'YYYY_MM_DD')) is not null then return; end if;
      -- Somebody may have made it while this one waited for the lock.
      perform pg_advisory_xact_lock(hashtext('create_webhook_partitions'));
      foreach part in array array['webhook_events', 'webhook_deliveries'] loop
        name := part || '_' || to_char(starts_at, 'YYYY_MM_DD');
        continue when to_regclass(name) is not null;
        -- Attached, not created as a partition; see 0005.
        execute format('create table %I (like %I including all)', name, part);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', part, name,
          uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '7 days') at time zone 'UTC'));
      end loop;
    end
    $$
  `.execute(db);
  await sql`
    create function drop_webhook_weeks(happened_before timestamptz) returns setof text language plpgsql as $$
    declare
      name text;
    begin
      perform pg_advisory_xact_lock(hashtext('create_webhook_partitions'));
      for name in
        select substr(c.relname, 16) from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'webhook_events'::regclass and c.relname ~ '^webhook_events_[0-9_]+$' order by 1
      loop
        continue when to_date(name, 'YYYY_MM_DD') + interval '7 days' > happened_before at time zone 'UTC';
        execute format('drop table %I', 'webhook_deliveries_' || name);
        execute format('drop table %I', 'webhook_events_' || name);
        return next name;
      end loop;
    end
    $$
  `.execute(db);
}
