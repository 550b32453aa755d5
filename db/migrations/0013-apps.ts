import { type Kysely, sql } from 'kysely';

/**
 * What several apps need: settings of each, credentials that are stored, keys that may do only so much, and a record of who changed
 * what.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await appsHaveSettings(db);
  await credentialsAreUsed(db);
  await keysMayDoSoMuch(db);
  await changesAreRecorded(db);
  await appsCanBeDeleted(db);
  await claimsMarkAllThatWasSent(db);
}

async function appsHaveSettings(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table apps
      add column apns_topics text[] not null default '{}',
      add column apns_environment text not null default 'production',
      add column default_ttl_seconds integer,
      add column default_in_doubt_policy text not null default 'redeliver',
      add column max_devices bigint,
      add column version integer not null default 1,
      add column updated_at timestamptz not null default now(),
      add column deletion jsonb,
      add constraint apps_name_check check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$') not valid,
      add constraint apps_environment_check check (apns_environment in ('production', 'sandbox')),
      add constraint apps_ttl_check check (default_ttl_seconds between 0 and 2419200),
      add constraint apps_policy_check check (default_in_doubt_policy in ('redeliver', 'skip')),
      add constraint apps_max_devices_check check (max_devices >= 0)
  `.execute(db);
  // Workers compare it with what they opened their connections by.
  await sql`
    create function note_app_change() returns trigger language plpgsql as $$
    begin
      new.version := old.version + 1;
      return new;
    end
    $$
  `.execute(db);
  await sql`
    create trigger apps_noted before update of apns_topic, apns_environment, fcm_project_id on apps for each row
      when ((old.apns_topic, old.apns_environment, old.fcm_project_id) is distinct from
        (new.apns_topic, new.apns_environment, new.fcm_project_id))
      execute function note_app_change()
  `.execute(db);
}

async function credentialsAreUsed(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table credentials
      add column fingerprint text not null,
      add column expires_at timestamptz,
      add column activated_at timestamptz,
      add column last_used_at timestamptz,
      add column last_refused_at timestamptz,
      add column last_refusal text,
      add constraint credentials_refusal_check check ((last_refused_at is null) = (last_refusal is null))
  `.execute(db);
  // Stored twice is stored once.
  await sql`
    create unique index credentials_fingerprint_key on credentials (app_id, kind, fingerprint) where revoked_at is null
  `.execute(db);
  await sql`
    create function note_credential_change() returns trigger language plpgsql as $$
    begin
      update apps set version = version + 1 where id = coalesce(new.app_id, old.app_id);
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create trigger credentials_noted after insert or delete or update of activated_at, revoked_at, secret_jwe on credentials
      for each row execute function note_credential_change()
  `.execute(db);
  // In plain text until now; workers make new ones.
  await sql`delete from provider_tokens`.execute(db);
  await sql`alter table provider_tokens rename column token to token_jwe`.execute(db);
}

/** A key of no app is an administrator's, who names an app with each request. */
async function keysMayDoSoMuch(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table api_keys
      alter column app_id drop not null,
      add column expires_at timestamptz,
      add column requests_per_second integer,
      add constraint api_keys_rate_check check (requests_per_second > 0)
  `.execute(db);
  // Every key could do everything that its app allows.
  await sql`
    update api_keys set scopes = array['devices:read', 'devices:write', 'notifications:read', 'notifications:write', 'notifications:send',
      'notifications:stop', 'messages:read', 'messages:send', 'credentials:write'] where '*' = any (scopes)
  `.execute(db);
  await sql`
    alter table api_keys add constraint api_keys_admin_check check ((app_id is null) = ('admin' = any (scopes)))
  `.execute(db);
  await sql`create index api_keys_app_idx on api_keys (app_id)`.execute(db);
}

async function changesAreRecorded(db: Kysely<unknown>): Promise<void> {
  // No foreign key: what was done to an app that is gone stays told.
  await sql`
    create table audit_entries (
      id uuid not null,
      app_id bigint,
      app_name text,
      actor_kind text not null,
      actor text not null,
      request_id text,
      address text,
      action text not null,
      target_kind text not null,
      target_id text not null,
      changes jsonb not null default '{}',
      constraint audit_entries_pkey primary key (id),
      constraint audit_entries_actor_check check (actor_kind in ('key', 'jwt', 'operator', 'worker'))
    ) partition by range (id)
  `.execute(db);
  await sql`create index audit_entries_app_idx on audit_entries (app_id, id)`.execute(db);
  await sql`
    create function create_audit_partition(instant timestamptz) returns void language plpgsql as $$
    declare
      starts_at timestamp := date_trunc('month', instant at time zone 'UTC');
      name text := 'audit_entries_' || to_char(starts_at, 'YYYY_MM');
    begin
      if to_regclass(name) is not null then return; end if;
      -- Somebody may have made it while this one waited for the lock.
      perform pg_advisory_xact_lock(hashtext('create_audit_partition'));
      if to_regclass(name) is not null then return; end if;
      execute format('create table %I (like audit_entries including all)', name);
      execute format('alter table audit_entries attach partition %I for values from (%L) to (%L)', name,
        uuid_v7_floor(starts_at at time zone 'UTC'), uuid_v7_floor((starts_at + interval '1 month') at time zone 'UTC'));
    end
    $$
  `.execute(db);
  await sql`
    create function drop_audit_months(recorded_before timestamptz) returns setof text language plpgsql as $$
    declare
      name text;
    begin
      perform pg_advisory_xact_lock(hashtext('create_audit_partition'));
      for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'audit_entries'::regclass and c.relname ~ '^audit_entries_[0-9]{4,}_[0-9]{2}$' order by 1
      loop
        continue when to_date(substr(name, 15), 'YYYY_MM') + interval '1 month' > recorded_before at time zone 'UTC';
        execute format('drop table %I', name);
        return next name;
      end loop;
    end
    $$
  `.execute(db);
  // Whatever clock made the id, its month has a partition.
  await sql`
    create function record_audit_entry(
      p_id uuid, p_app_id bigint, p_actor_kind text, p_actor text, p_request_id text, p_address text, p_action text,
      p_target_kind text, p_target_id text, p_changes jsonb
    ) returns void language plpgsql as $$
    begin
      perform create_audit_partition(uuid_v7_instant(p_id));
      insert into audit_entries (id, app_id, app_name, actor_kind, actor, request_id, address, action, target_kind, target_id, changes)
        values (p_id, p_app_id, (select name from apps where id = p_app_id), p_actor_kind, p_actor, p_request_id, p_address, p_action,
          p_target_kind, p_target_id, p_changes);
    end
    $$
  `.execute(db);
}

/** Page by page, along indexes. */
async function appsCanBeDeleted(db: Kysely<unknown>): Promise<void> {
  // All others are found by their entries.
  await sql`create index messages_without_device_idx on messages (app_id) where device_ids = '{}'`.execute(db);
  // As in 0006. Of an app that is being deleted nobody asks any more.
  await sql`
    create or replace function note_token_departure() returns trigger language plpgsql as $$
    begin
      if not exists (select from apps where id = old.app_id and deletion is not null) then
        insert into token_departures (device_token, app_id, device_id) values (old.device_token, old.app_id, old.id);
      end if;
      return null;
    end
    $$
  `.execute(db);
}

/** `claim_lane` of 0012, which left out what was dispatched above the horizon. */
async function claimsMarkAllThatWasSent(db: Kysely<unknown>): Promise<void> {
  // Of the few that were deferred: recording an outcome writes no index.
  await sql`
    create index message_entries_dispatched_idx on message_entries (lane_id, position) where dispatched
  `.execute(db);
  await sql`
    create or replace function claim_lane(p_lane_id integer, p_own integer default null, out fence integer, out horizon bigint, out settled bigint, out changes integer)
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
      -- One that waited behind another is sent ahead of the fresh ones before it, so above the horizon too.
      update message_entries e set attempts = e.attempts + 1, doubts = e.doubts + 1, dispatched = false, reason = 'in_doubt', not_before = to_timestamp(0)
        where e.lane_id = p_lane_id and e.dispatched and e.outcome is null;
      update message_entries e set attempts = e.attempts + 1, doubts = e.doubts + 1, reason = 'in_doubt', not_before = to_timestamp(0)
        where e.lane_id = p_lane_id and e.position >= lane.settled and e.position < lane.horizon and e.outcome is null
          and e.not_before is null;
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
  for (const way of ['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) {
    await sql.raw(`alter function claim_lane set ${way} = off`).execute(db);
  }
}
