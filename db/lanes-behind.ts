import { type Kysely, sql } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** A lane with entries that wait for their first attempt for long. */
export interface LaneBehind {
  app: string;
  provider: ProviderName;
  number: number;
  /** When the oldest of them was accepted. */
  since: Date;
}

const limit = 100;

/** One look into an index for each lane that anything waits in. Entries that wait for a further attempt do not count: they have their time. */
export async function listLanesBehindOfAllApps(db: Kysely<Database>, seconds: number): Promise<LaneBehind[]> {
  const { rows } = await sql<LaneBehind>`
    select a.name as app, l.provider, l.number, oldest.since
    from lanes l join lane_ends e on e.lane_id = l.id join apps a on a.id = l.app_id
    cross join lateral (
      select uuid_v7_instant(m.message_id) as since from message_entries m
      where m.lane_id = l.id and m.position >= l.horizon and m.outcome is null order by m.position limit 1
    ) as oldest
    where l.horizon < e.next_position and oldest.since < clock_timestamp() - make_interval(secs => ${seconds})
    order by oldest.since limit ${limit}
  `.execute(db);
  return rows;
}
