/**
 * A witness inside the database: whenever a batch is claimed again, it notes the devices in flight at that moment, reserved and
 * with neither outcome nor answer. The engine knows nothing of the witness, so the books can be checked against it.
 */
import { type Kysely, sql } from 'kysely';
import type { Database } from '../../db/schema.ts';

/** Safe to repeat. */
export async function installTakeoverWitness(db: Kysely<Database>): Promise<void> {
  await sql`create schema if not exists chaos`.execute(db);
  await sql`
    create table if not exists chaos.takeovers (
      notification_id uuid not null, seq integer not null, fence integer not null, in_flight bigint[] not null
    )
  `.execute(db);
  await sql`
    create or replace function chaos.note_takeover() returns trigger language plpgsql as $$
    begin
      insert into chaos.takeovers
      select new.notification_id, new.seq, new.fence, coalesce(array_agg(new.first_device_id + member.device_offset), '{}')
      from unnest(new.device_offsets) with ordinality as member (device_offset, ordinal)
      left join public.deferrals f on f.notification_id = new.notification_id
        and f.device_id = new.first_device_id + member.device_offset
      where coalesce(f.dispatched, member.ordinal <= new.horizon) and get_bit(new.recorded, member.ordinal::integer - 1) = 0;
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create or replace trigger note_takeover after update of fence on batches
    for each row when (old.fence > 0 and new.fence > old.fence) execute function chaos.note_takeover()
  `.execute(db);
}

/** Devices in flight, one list for each time that a batch was taken over. */
export async function readTakeovers(db: Kysely<Database>, notificationId: string): Promise<number[][]> {
  const { rows } = await sql<{ in_flight: number[] }>`
    select in_flight from chaos.takeovers where notification_id = ${notificationId}
  `.execute(db);
  return rows.map((row) => row.in_flight);
}
