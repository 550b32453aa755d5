import { sql, type Transaction } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { Outcome } from '../domain/outcome.ts';
import type { Ended } from './delivery-groups.ts';
import type { Database } from './schema.ts';

/** Entries that ended alike, of one provider. */
interface EndedEntries extends Ended {
  provider: ProviderName;
  devices: number;
}

/** What this transaction has ended of a message or a lane so far, by functions of the database that tell a number alone. */
export async function listEndedByThisOfAnyApp(
  trx: Transaction<Database>,
  of: { messageId: string } | { laneId: number },
): Promise<EndedEntries[]> {
  const which =
    'messageId' in of
      ? sql`e.message_id = ${of.messageId} and e.device_id = any ((select device_ids from messages where id = ${of.messageId})::bigint[])`
      : sql`e.lane_id = ${of.laneId} and e.position >= (select settled from lanes where id = ${of.laneId})`;
  const { rows } = await sql<{
    provider: ProviderName;
    outcome: Outcome;
    http_status: number | null;
    reason: string | null;
    attempts: number;
    in_doubt: boolean;
    devices: number;
  }>`
    select l.provider, e.outcome, e.http_status, e.reason, e.attempts, e.doubts > 0 as in_doubt, count(*) as devices
    from message_entries e join lanes l on l.id = e.lane_id
    where ${which} and e.outcome is not null and e.xmin = pg_current_xact_id()::xid
    group by 1, 2, 3, 4, 5, 6
  `.execute(trx);
  return rows.map(({ http_status: httpStatus, in_doubt: inDoubt, ...rest }) => ({ ...rest, httpStatus, inDoubt }));
}
