/**
 * SQL: whether the row of `devices` called `owner` is live and has the token of the row `other`. The index of live tokens holds 128
 * bits of each token, so that it stays small; the token itself is compared after that. `+ 0` leaves this index alone to the planner:
 * with statistics from before a large import it takes another one for a way to all devices of the app, and reads them all.
 */
export function ownsTokenOf(other: string): string {
  return `owner.app_id + 0 = ${other}.app_id and owner.provider = ${other}.provider
    and hashtextextended(owner.device_token, 0) = hashtextextended(${other}.device_token, 0)
    and hashtextextended(owner.device_token, 1) = hashtextextended(${other}.device_token, 1)
    and owner.device_token = ${other}.device_token and owner.retired_at is null and owner.device_token is not null`;
}
