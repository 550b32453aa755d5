import { sql, type Transaction } from 'kysely';
import type { Claim } from './batches.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { HostTrouble } from './provider-hosts.ts';
import type { Database } from './schema.ts';

export type Reservation =
  | { answer: 'go'; granted: number; hosts: HostTrouble[] }
  | { answer: 'wait'; waitMs: number }
  /** Only of a lane: entries were cancelled since it was read. */
  | { answer: 'changed' }
  | { answer: 'fenced' | 'paused' | 'halted' | 'cancelled' | 'expired' };

const reserveWindowStatement: PreparedStatement = {
  name: 'reserve_window',
  text: `select answer, granted, wait_ms, hosts
    from reserve_window($1, $2, $3, $4::integer[], $5::bigint[], $6, $7::text[], $8)`,
};

/** One window, reserved before it is dispatched; see `migrations/0007-no-first-dispatch.ts`. */
export async function reserveWindow(
  client: StatementClient,
  claim: Claim,
  window: { positions: number[]; deferredIds: number[]; providerScope: string; hosts?: string[]; credential?: string },
): Promise<Reservation> {
  const { rows } = await client.query({
    ...reserveWindowStatement,
    values: [
      ...[claim.notificationId, claim.seq, claim.fence],
      ...[numberArray(window.positions), numberArray(window.deferredIds), window.providerScope],
      ...[window.hosts ?? [], window.credential ?? ''],
    ],
  });
  return toReservation(rows[0]!);
}

/** The answer of `reserve_window` or `reserve_lane_window`. */
export function toReservation(row: {
  answer: Reservation['answer'];
  granted: number;
  wait_ms: number;
  hosts: { host: string; wait_ms: number; reason: string; is_unreachable: boolean; is_let_through: boolean }[] | null;
}): Reservation {
  const { answer, granted, wait_ms, hosts } = row;
  if (answer === 'go') {
    const troubles = (hosts ?? []).map((host) => ({
      ...{ host: host.host, waitMs: host.wait_ms, reason: host.reason },
      ...{ isUnreachable: host.is_unreachable, isLetThrough: host.is_let_through },
    }));
    return { answer, granted, hosts: troubles };
  }
  if (answer === 'wait') return { answer, waitMs: wait_ms };
  return { answer };
}

/**
 * Gives back what was reserved and never dispatched, so that it is not in doubt later: fresh devices from `position` on and
 * these deferred devices. Without effect when a later claim owns the batch.
 */
export async function returnReserved(
  trx: Transaction<Database>,
  claim: Claim,
  undispatched: { position: number | undefined; deferredIds: number[] },
): Promise<void> {
  const owned = await trx
    .updateTable('batches')
    .set({ horizon: undispatched.position ?? sql<number>`horizon` })
    .where('notification_id', '=', claim.notificationId)
    .where('seq', '=', claim.seq)
    .where('fence', '=', claim.fence)
    .returning('seq')
    .executeTakeFirst();
  if (!owned || undispatched.deferredIds.length === 0) return;
  await trx
    .updateTable('deferrals')
    .set({ dispatched: false })
    .where('notification_id', '=', claim.notificationId)
    .where('device_id', '=', sql<number>`any(${undispatched.deferredIds}::bigint[])`)
    .execute();
}
