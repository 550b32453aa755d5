import { type Kysely, sql } from 'kysely';

/**
 * What is known of a configuration (app, provider, platform, environment, topic, credential) when a provider calls a token bad
 * that a wrong configuration would make it call bad too; and which tokens have left a device, so that a phone is recognised
 * when it comes up again under another one.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  // Counts of about the last 200 answers, older ones worn down: a share needs no more, and a million of yesterday's must not
  // outvote today's.
  await sql`
    create table token_evidence (
      app_id bigint not null,
      configuration text not null,
      accepted real not null,
      suspicious real not null,
      accepted_at timestamptz not null default '-infinity',
      updated_at timestamptz not null default now(),
      constraint token_evidence_pkey primary key (app_id, configuration),
      constraint token_evidence_app_fkey foreign key (app_id) references apps (id) on delete cascade
    )
  `.execute(db);
  await sql`
    create table token_suspects (
      app_id bigint not null,
      configuration text not null,
      device_id bigint not null,
      suspected_at timestamptz not null default now(),
      constraint token_suspects_pkey primary key (app_id, configuration, device_id),
      constraint token_suspects_app_fkey foreign key (app_id) references apps (id) on delete cascade
    )
  `.execute(db);

  /*
   * Weighs new answers together with the window of older ones, and keeps them in it. Acceptances count for a day, whatever came
   * since. A device counts as suspicious once a day, however often it is asked: three phones in a drawer are no mass of dead tokens.
   */
  await sql`
    create function weigh_tokens(
      p_app_id bigint,
      p_configuration text,
      p_accepted integer,
      p_suspect_ids bigint[],
      out accepted real,
      out suspicious real
    ) language plpgsql as $$
    declare
      window_size constant real := 200;
      window_age constant interval := '24 hours';
      earlier token_evidence%rowtype;
      fresh real;
      wear real := 0;
    begin
      -- The row is the lock under which all evidence of the configuration is counted.
      insert into token_evidence values (p_app_id, p_configuration, 0, 0) on conflict do nothing;
      select * into earlier from token_evidence
        where app_id = p_app_id and configuration = p_configuration for update;
      select count(*) into fresh from unnest(p_suspect_ids) as suspect (id)
        where not exists (
          select from token_suspects t where t.app_id = p_app_id and t.configuration = p_configuration
            and t.device_id = suspect.id and t.suspected_at > clock_timestamp() - window_age
        );
      if earlier.accepted_at <= clock_timestamp() - window_age then earlier.accepted := 0; end if;
      if earlier.updated_at <= clock_timestamp() - window_age then earlier.suspicious := 0; end if;
      if earlier.accepted + earlier.suspicious > 0 then
        wear := least(1, greatest(0, window_size - p_accepted - fresh) / (earlier.accepted + earlier.suspicious));
      end if;
      accepted := earlier.accepted * wear + p_accepted;
      suspicious := earlier.suspicious * wear + fresh;
      update token_evidence e
        set accepted = weigh_tokens.accepted, suspicious = weigh_tokens.suspicious, updated_at = clock_timestamp(),
          accepted_at = case when p_accepted > 0 then clock_timestamp() else e.accepted_at end
        where app_id = p_app_id and configuration = p_configuration;
      insert into token_suspects (app_id, configuration, device_id)
        select distinct p_app_id, p_configuration, suspect.id from unnest(p_suspect_ids) as suspect (id)
        on conflict on constraint token_suspects_pkey do update set suspected_at = clock_timestamp()
          where token_suspects.suspected_at <= clock_timestamp() - window_age;
      -- Whoever was counted before is still one.
      suspicious := greatest(suspicious, least(1, cardinality(p_suspect_ids)));
    end
    $$
  `.execute(db);

  // Attempts that ended through no fault of the device; and when it was last refused: a device that is refused while others are taken
  // has trouble of its own.
  await sql`
    alter table deferrals add column excused smallint not null default 0, add column refused_at timestamptz
  `.execute(db);

  await sql`
    create table token_departures (
      device_token text not null,
      app_id bigint not null,
      device_id bigint not null,
      departed_at timestamptz not null default clock_timestamp()
    )
  `.execute(db);
  await sql`create index token_departures_token_idx on token_departures (device_token, app_id)`.execute(db);
  await sql`create index token_departures_departed_at_idx on token_departures using brin (departed_at)`.execute(db);
  // A trigger, because a token leaves a device in many ways: another one registers it, the device registers a new one, the
  // device is deleted, an operator repairs rows by hand.
  await sql`
    create function note_token_departure() returns trigger language plpgsql as $$
    begin
      insert into token_departures (device_token, app_id, device_id) values (old.device_token, old.app_id, old.id);
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create trigger devices_token_departs after update on devices for each row
      when (old.retired_at is null and old.device_token is not null
        and (new.device_token is distinct from old.device_token or new.retired_reason = 'token_moved'))
      execute function note_token_departure()
  `.execute(db);
  await sql`
    create trigger devices_token_departs_with_device after delete on devices for each row
      when (old.retired_at is null and old.device_token is not null)
      execute function note_token_departure()
  `.execute(db);
}
