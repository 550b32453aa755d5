import { type Kysely, sql } from 'kysely';
import type { Audience } from '../domain/audience.ts';
import { type Platform, type ProviderName, platforms, providerNames } from '../domain/device.ts';
import type { Listed } from '../domain/notification.ts';
import { audienceFilter } from './audience.ts';
import type { Database } from './schema.ts';

interface AudienceSize {
  devices: number;
  /** Where the audience lists ids. */
  listed: Listed | undefined;
  byProvider: Record<ProviderName, number>;
  byPlatform: Record<Platform, number>;
}

/** How many live devices an audience has at this moment. */
export async function countAudience(db: Kysely<Database>, appId: number, audience: Audience): Promise<AudienceSize> {
  const rows = await db
    .selectFrom('devices')
    .select(['provider', 'platform'])
    .select((eb) => eb.fn.countAll<number>().as('devices'))
    .where(audienceFilter(appId, audience))
    .groupBy(['provider', 'platform'])
    .execute();
  const isListed = audience.externalIds !== undefined || audience.userIds !== undefined;
  const listed = isListed
    ? await sql<{
        listed: Listed;
      }>`select listed_counts(${appId}, ${JSON.stringify(audience)}::jsonb, null) as listed`.execute(db)
    : undefined;
  const sum = (matching: typeof rows) => matching.reduce((total, row) => total + row.devices, 0);
  const counts = <K extends string>(keys: readonly K[], column: 'provider' | 'platform') =>
    Object.fromEntries(keys.map((key) => [key, sum(rows.filter((row) => row[column] === key))])) as Record<K, number>;
  return {
    devices: sum(rows),
    listed: listed?.rows[0]?.listed,
    byProvider: counts(providerNames, 'provider'),
    byPlatform: counts(platforms, 'platform'),
  };
}
