import { type Kysely, sql } from 'kysely';
import { canonicalLocale } from '../../domain/locale.ts';
import { canonicalTimeZone } from '../../domain/time-zone.ts';

/**
 * Devices in the form in which they are registered from now on, what an import needs to know its own rows by, uploaded audiences,
 * and how many listed ids were found. Reads the devices twice; rewrites those alone that change.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await canonicalise(db, 'time_zone', canonicalTimeZone);
  await canonicalise(db, 'locale', canonicalLocale);

  // What programs write where they have no token; by the index of live tokens.
  const placeholders = [
    '',
    '(null)',
    '<null>',
    'null',
    'nil',
    '(nil)',
    '<nil>',
    '<>',
    '()',
    'undefined',
    'none',
    'None',
  ];
  await sql`
    update devices set device_token = null where retired_at is null and device_token = any(${placeholders}::text[])
  `.execute(db);
  await sql`update devices set device_token = null where device_token = ''`.execute(db);
  await sql`alter table devices add constraint devices_device_token_check check (device_token <> '')`.execute(db);

  // A number that comes round again after two milliards of imports tells rows of one import from all others' all the same.
  await sql`create sequence device_import_ids as integer cycle`.execute(db);
  await sql`alter table devices add column import_id integer`.execute(db);

  await sql`
    create table audience_lists (
      id uuid not null,
      notification_id uuid not null,
      created_at timestamptz not null default now(),
      constraint audience_lists_pkey primary key (id),
      constraint audience_lists_notification_fkey
        foreign key (notification_id) references notifications (id) on delete cascade
    )
  `.execute(db);
  await sql`create index audience_lists_notification_idx on audience_lists (notification_id)`.execute(db);
  await sql`
    create table audience_members (
      list_id uuid not null,
      device_id bigint not null,
      user_id text,
      constraint audience_members_pkey primary key (list_id, device_id),
      constraint audience_members_list_fkey foreign key (list_id) references audience_lists (id) on delete cascade
    )
  `.execute(db);

  await sql`alter table notifications add column listed jsonb, add column audience_list_id uuid`.execute(db);
  // LATERAL keeps it to one look into an index for each id, whatever the statistics say.
  await sql`
    create function listed_counts(app bigint, audience jsonb, uploaded jsonb) returns jsonb language sql stable as $$
      select nullif(jsonb_strip_nulls(jsonb_build_object(
        'externalIds', case when audience ? 'externalIds' then (
          select jsonb_build_object('listed', count(*), 'matched', count(device.is_live),
            'live', count(*) filter (where device.is_live))
          from (select distinct jsonb_array_elements_text(audience -> 'externalIds') as id) as item
          left join lateral (
            select retired_at is null and device_token is not null as is_live
            from devices where app_id = app and external_id = item.id limit 1
          ) as device on true
        ) end,
        'userIds', case when audience ? 'userIds' then (
          select jsonb_build_object('listed', count(*), 'matched', count(device.is_live),
            'live', count(*) filter (where device.is_live))
          from (select distinct jsonb_array_elements_text(audience -> 'userIds') as id) as item
          left join lateral (
            select bool_or(retired_at is null and device_token is not null) as is_live
            from devices where app_id = app and user_id = item.id
          ) as device on true
        ) end,
        'uploaded', case when audience ? 'uploaded' then uploaded end
      )), '{}')
    $$
  `.execute(db);
}

/** Empty becomes null. What has no such form stays as it is: the app will say it again. */
async function canonicalise(
  db: Kysely<unknown>,
  column: 'time_zone' | 'locale',
  canonical: (text: string) => string | undefined,
): Promise<void> {
  const { rows } = await sql<{ stored: string }>`
    select distinct ${sql.ref(column)} as stored from devices where ${sql.ref(column)} is not null
  `.execute(db);
  const changes = rows
    .map(({ stored }) => ({ stored, right: stored === '' ? null : (canonical(stored) ?? stored) }))
    .filter(({ stored, right }) => stored !== right);
  if (changes.length === 0) return;
  await sql`
    update devices set ${sql.ref(column)} = changes.right_form
    from unnest(
      ${changes.map(({ stored }) => stored)}::text[], ${changes.map(({ right }) => right)}::text[]
    ) as changes (stored, right_form)
    where devices.${sql.ref(column)} = changes.stored
  `.execute(db);
}
