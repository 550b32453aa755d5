import { type Kysely, sql } from 'kysely';

/**
 * The books: apps, credentials, keys, devices, notifications, batches, deferrals, rate limits, and deliveries with the functions
 * that make their partitions. One statement per object, so that a reader finds the schema in one place.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create type delivery_outcome as enum
      ('accepted', 'rejected', 'unregistered', 'expired', 'failed', 'skipped', 'cancelled', 'unknown')
  `.execute(db);

  await sql`
    create table apps (
      id bigint generated always as identity,
      name text not null,
      apns_topic text,
      fcm_project_id text,
      created_at timestamptz not null default now(),
      constraint apps_pkey primary key (id),
      constraint apps_name_key unique (name)
    )
  `.execute(db);
  await sql`insert into apps (name) values ('default')`.execute(db);

  await sql`
    create table credentials (
      id uuid not null,
      app_id bigint not null,
      kind text not null,
      details jsonb not null default '{}',
      secret_jwe text not null,
      created_at timestamptz not null default now(),
      revoked_at timestamptz,
      constraint credentials_pkey primary key (id),
      constraint credentials_app_fkey foreign key (app_id) references apps (id),
      constraint credentials_kind_check check (kind in ('apns_key', 'apns_certificate', 'fcm_service_account'))
    )
  `.execute(db);

  await sql`
    create table provider_tokens (
      fingerprint text not null,
      token text not null,
      issued_at timestamptz not null,
      updated_at timestamptz not null default now(),
      constraint provider_tokens_pkey primary key (fingerprint)
    )
  `.execute(db);

  await sql`
    create table api_keys (
      id uuid not null,
      app_id bigint not null,
      name text not null,
      key_hash bytea not null,
      scopes text[] not null,
      created_at timestamptz not null default now(),
      last_used_at timestamptz,
      revoked_at timestamptz,
      constraint api_keys_pkey primary key (id),
      constraint api_keys_app_fkey foreign key (app_id) references apps (id),
      constraint api_keys_key_hash_key unique (key_hash)
    )
  `.execute(db);

  await sql`
    create table devices (
      id bigint generated always as identity,
      app_id bigint not null,
      external_id text not null,
      user_id text,
      provider text not null,
      platform text not null,
      device_token text,
      apns_environment text,
      properties jsonb not null default '{}',
      locale text,
      time_zone text,
      bucket integer not null default (1 + floor(random() * 10000))::integer,
      registered_at timestamptz not null default now(),
      retired_at timestamptz,
      retired_reason text,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      constraint devices_pkey primary key (id),
      constraint devices_app_fkey foreign key (app_id) references apps (id),
      constraint devices_app_external_id_key unique (app_id, external_id),
      constraint devices_provider_check check (provider in ('apns', 'fcm')),
      constraint devices_platform_check check (platform in ('ios', 'android', 'web')),
      constraint devices_apns_environment_check check (apns_environment in ('production', 'sandbox')),
      constraint devices_environment_is_apns_check check (apns_environment is null or provider = 'apns'),
      constraint devices_bucket_check check (bucket between 1 and 10000),
      constraint devices_retired_check check ((retired_at is null) = (retired_reason is null)),
      constraint devices_properties_check check (jsonb_typeof(properties) = 'object')
    )
  `.execute(db);
  await sql`
    create unique index devices_live_token_key on devices (app_id, provider, device_token)
      where retired_at is null and device_token is not null
  `.execute(db);
  await sql`create index devices_user_id_idx on devices (app_id, user_id) where user_id is not null`.execute(db);

  await sql`
    create table notifications (
      id uuid not null,
      app_id bigint not null,
      state text not null,
      title text,
      message jsonb not null,
      audience jsonb not null,
      in_doubt_policy text not null default 'redeliver',
      rate_per_second integer,
      idempotency_key text,
      request_hash text,
      device_ceiling bigint,
      plan_cursor bigint not null default 0,
      planned_at timestamptz,
      batch_count integer not null default 0,
      audience_size bigint not null default 0,
      scheduled_at timestamptz,
      launched_at timestamptz,
      expires_at timestamptz,
      finished_at timestamptz,
      halt_reason text,
      halt_detail text,
      totals jsonb,
      version integer not null default 1,
      seen_version integer not null default 0,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now(),
      constraint notifications_pkey primary key (id),
      constraint notifications_app_fkey foreign key (app_id) references apps (id),
      constraint notifications_app_idempotency_key unique (app_id, idempotency_key),
      constraint notifications_state_check
        check (state in ('draft', 'scheduled', 'sending', 'paused', 'halted', 'completed', 'cancelled')),
      constraint notifications_policy_check check (in_doubt_policy in ('redeliver', 'skip')),
      constraint notifications_rate_check check (rate_per_second > 0),
      constraint notifications_ceiling_check
        check (device_ceiling is not null or state in ('draft', 'scheduled', 'cancelled')),
      constraint notifications_scheduled_check check (state <> 'scheduled' or scheduled_at is not null),
      constraint notifications_finished_check
        check (finished_at is null or state in ('completed', 'cancelled')),
      constraint notifications_completed_check check (state <> 'completed' or finished_at is not null),
      constraint notifications_halted_check check ((state = 'halted') = (halt_reason is not null))
    )
  `.execute(db);
  await sql`create index notifications_app_id_idx on notifications (app_id, id desc)`.execute(db);
  await sql`
    create index notifications_open_idx on notifications (id)
      where finished_at is null and state <> 'draft'
  `.execute(db);

  await sql`
    create table batches (
      notification_id uuid not null,
      seq integer not null,
      provider text not null,
      device_ids bigint[] not null,
      size integer not null,
      fence integer not null default 0,
      horizon integer not null default 0,
      accepted integer not null default 0,
      rejected integer not null default 0,
      unregistered integer not null default 0,
      expired integer not null default 0,
      failed integer not null default 0,
      skipped integer not null default 0,
      cancelled integer not null default 0,
      unknown integer not null default 0,
      first_dispatched_at timestamptz,
      finished_at timestamptz,
      constraint batches_pkey primary key (notification_id, seq),
      constraint batches_notification_fkey foreign key (notification_id) references notifications (id) on delete cascade,
      constraint batches_provider_check check (provider in ('apns', 'fcm')),
      constraint batches_size_check check (size > 0 and size = cardinality(device_ids)),
      constraint batches_horizon_check check (horizon between 0 and size),
      constraint batches_counts_check
        check (accepted + rejected + unregistered + expired + failed + skipped + cancelled + unknown <= size),
      constraint batches_finished_check
        check (finished_at is null
          or accepted + rejected + unregistered + expired + failed + skipped + cancelled + unknown = size)
    )
  `.execute(db);
  await sql`create index batches_open_idx on batches (notification_id, seq) where finished_at is null`.execute(db);

  await sql`
    create table deferrals (
      notification_id uuid not null,
      device_id bigint not null,
      batch_seq integer not null,
      not_before timestamptz not null,
      attempts smallint not null,
      doubts smallint not null default 0,
      dispatched boolean not null default false,
      reason text not null,
      http_status smallint,
      constraint deferrals_pkey primary key (notification_id, device_id),
      constraint deferrals_batch_fkey
        foreign key (notification_id, batch_seq) references batches (notification_id, seq) on delete cascade
    )
  `.execute(db);
  await sql`create index deferrals_batch_idx on deferrals (notification_id, batch_seq)`.execute(db);

  await sql`
    create table deliveries (
      device_id bigint not null,
      finished_at timestamptz not null default now(),
      notification_id uuid not null,
      batch_seq integer not null,
      outcome delivery_outcome not null,
      http_status smallint,
      attempts smallint not null,
      in_doubt boolean not null,
      reason text,
      provider_message_id text,
      constraint deliveries_pkey primary key (notification_id, device_id)
    ) partition by range (notification_id)
  `.execute(db);

  await sql`
    create table rate_limits (
      scope text not null,
      rate_per_second integer,
      next_at timestamptz not null default '-infinity',
      blocked_until timestamptz not null default '-infinity',
      constraint rate_limits_pkey primary key (scope),
      constraint rate_limits_rate_check check (rate_per_second > 0)
    )
  `.execute(db);

  // UUID v7 begins with 48 bits of Unix milliseconds (RFC 9562 §5.7), so an instant has a smallest id.
  await sql`
    create function uuid_v7_floor(instant timestamptz) returns uuid language sql immutable strict parallel safe as $$
      select (lpad(to_hex((extract(epoch from instant) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
    $$
  `.execute(db);

  // One partition a calendar month (UTC), made ahead of time; the advisory lock keeps two workers from making one twice.
  await sql`
    create function create_delivery_partitions(from_month date, months integer) returns void language plpgsql as $$
    declare
      month_start timestamptz;
      name text;
    begin
      perform pg_advisory_xact_lock(hashtext('create_delivery_partitions'));
      for i in 0..months - 1 loop
        month_start := (date_trunc('month', from_month::timestamp) + make_interval(months => i)) at time zone 'UTC';
        name := 'deliveries_' || to_char(month_start at time zone 'UTC', 'YYYY_MM');
        if to_regclass(name) is null then
          execute format('create table %I partition of deliveries for values from (%L) to (%L)', name,
            uuid_v7_floor(month_start), uuid_v7_floor(((month_start at time zone 'UTC') + interval '1 month') at time zone 'UTC'));
        end if;
      end loop;
    end
    $$
  `.execute(db);
  await sql`select create_delivery_partitions((now() at time zone 'UTC')::date, 4)`.execute(db);
}
