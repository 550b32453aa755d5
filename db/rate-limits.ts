import type { Kysely } from 'kysely';
import { type ProviderName, providerNames } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** The scope that all workers of an app share towards one provider; its lanes have a meter of their own beside it. */
export function providerScope(appId: number, provider: ProviderName): string {
  return `app:${appId}:${provider}`;
}

/**
 * Devices per second over all workers, null: no limit. Obeyed from the next window of every send and lane on. What somebody blocked by
 * hand stays blocked.
 */
export async function setProviderRate(
  db: Kysely<Database>,
  scope: string,
  ratePerSecond: number | null,
): Promise<void> {
  await db
    .insertInto('rate_limits')
    .values({ scope, rate_per_second: ratePerSecond })
    .onConflict((oc) => oc.column('scope').doUpdateSet({ rate_per_second: ratePerSecond }))
    .execute();
}

/** All that an app has, but those of its notifications. */
export async function deleteRateLimits(db: Kysely<Database>, appId: number): Promise<void> {
  await db
    .deleteFrom('rate_limits')
    .where(
      'scope',
      'in',
      providerNames.flatMap((provider) => {
        const scope = providerScope(appId, provider);
        return [scope, `${scope}:lanes`];
      }),
    )
    .execute();
}
