import { type Kysely, sql } from 'kysely';
import type { Totals } from '../domain/notification.ts';
import { emptyOutcomeCounts } from '../domain/outcome.ts';
import { nextVersion } from './notification-moves.ts';
import type { Database } from './schema.ts';

/** Counted from the groups themselves, not from the batches' running counts. */
export async function countTotals(db: Kysely<Database>, notificationId: string): Promise<Totals & { devices: number }> {
  const rows = await db
    .selectFrom('delivery_groups')
    .select(['outcome', 'reason', 'in_doubt'])
    .select(sql<number>`sum(bit_count(positions))::bigint`.as('devices'))
    .where('notification_id', '=', notificationId)
    .groupBy(['outcome', 'reason', 'in_doubt'])
    .execute();
  const totals = { outcomes: emptyOutcomeCounts(), reasons: {} as Totals['reasons'], inDoubt: 0, devices: 0 };
  for (const row of rows) {
    totals.outcomes[row.outcome] += row.devices;
    totals.devices += row.devices;
    if (row.in_doubt) totals.inDoubt += row.devices;
    if (row.reason !== null) {
      totals.reasons[row.outcome] ??= {};
      const reasons = totals.reasons[row.outcome]!;
      reasons[row.reason] = (reasons[row.reason] ?? 0) + row.devices;
    }
  }
  return totals;
}

/** Closes the books with the totals counted from the groups: `sending → completed`, or the end of `cancelled`. A repeat changes nothing. */
export async function closeBooksOfAnyApp(db: Kysely<Database>, id: string, totals: Totals): Promise<void> {
  await db
    .updateTable('notifications')
    .set({
      state: sql`case state when 'sending' then 'completed' else state end`,
      finished_at: sql`clock_timestamp()`,
      totals: JSON.stringify(totals),
      ...nextVersion,
    })
    .where('id', '=', id)
    .where('state', 'in', ['sending', 'cancelled'])
    .where('finished_at', 'is', null)
    .execute();
}
