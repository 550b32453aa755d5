import { type Kysely, sql } from 'kysely';
import { isOfGroup } from './delivery-groups.ts';
import type { Database } from './schema.ts';

/**
 * Whether the phone behind a token got this notification already, under a device that the token has left since the launch:
 * - `certainly`: that device was accepted.
 * - `perhaps`: it is under way or in doubt.
 */
export type Reached = 'certainly' | 'perhaps';

/** Those of the devices whose token reached its phone before; `launchedAt`: of the notification. Departures are noted by a trigger. */
export async function listReachedBefore(
  db: Kysely<Database>,
  notification: { id: string; appId: number; launchedAt: Date },
  devices: { deviceId: number; deviceToken: string }[],
): Promise<Map<number, Reached>> {
  const { rows } = await sql<{ device_id: number; is_certain: boolean }>`
    select device.id as device_id, coalesce(bool_or(outcome.outcome = 'accepted'), false) as is_certain
    from unnest(${devices.map((d) => d.deviceId)}::bigint[], ${devices.map((d) => d.deviceToken)}::text[]) as device (id, token)
    join token_departures departure on departure.device_token = device.token and departure.app_id = ${notification.appId}
      and departure.departed_at >= ${notification.launchedAt} and departure.device_id <> device.id
    cross join lateral device_place(${notification.id}, departure.device_id) as place
    join batches b on b.notification_id = ${notification.id} and b.seq = place.batch_seq
    left join delivery_groups outcome on outcome.notification_id = ${notification.id} and outcome.batch_seq = place.batch_seq
      and ${isOfGroup('outcome', sql.ref('place.position'))}
    left join deferrals deferral on deferral.notification_id = ${notification.id}
      and deferral.device_id = departure.device_id
    where outcome.outcome = 'accepted' or outcome.in_doubt or deferral.doubts > 0 or deferral.dispatched
      or (outcome.batch_seq is null and deferral.device_id is null and place.position < b.horizon)
    group by device.id
  `.execute(db);
  return new Map(rows.map((row) => [row.device_id, row.is_certain ? 'certainly' : 'perhaps']));
}
