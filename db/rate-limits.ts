import type { Kysely } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { Database } from './schema.ts';

/** The scope that all workers of an app share towards one provider. */
export function providerScope(appId: number, provider: ProviderName): string {
  return `app:${appId}:${provider}`;
}

/** Devices per second over all workers, null for no limit; obeyed from the next window on. */
export async function setRateLimit(db: Kysely<Database>, scope: string, ratePerSecond: number | null): Promise<void> {
  await db
    .insertInto('rate_limits')
    .values({ scope, rate_per_second: ratePerSecond })
    .onConflict((oc) => oc.column('scope').doUpdateSet({ rate_per_second: ratePerSecond }))
    .execute();
}
