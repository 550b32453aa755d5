import { z } from '@hono/zod-openapi';
import type { LaneBehind } from '../../db/lanes-behind.ts';
import type { MigrationState } from '../../db/migration-state.ts';
import type { MuteApp } from '../../db/mute-apps.ts';
import { providerNames } from '../../domain/device.ts';
import { count } from '../http/counts.ts';
import { answeredInstant, answeredInstantOrNull } from '../http/instant.ts';
import { fromHaltedLane, haltedLaneSchema } from '../messages/lane-schema.ts';
import type { Readiness } from './readiness.ts';
import { fromUnreachableHost, unreachableHostSchema } from './unreachable-host.ts';

const migrationsSchema = z
  .object({
    status: z.enum(['current', 'behind', 'ahead']).openapi({
      description:
        '`behind`: the database lacks what this process needs, so it is not ready. `ahead`: a later release has migrated it.',
    }),
    latest: z.string().openapi({ description: 'The last one that was applied.' }),
    applied_at: answeredInstant,
    missing: z.array(z.string()),
    unknown: z.array(z.string()).openapi({ description: 'Applied by a later release.' }),
  })
  .openapi('Migrations');

function fromMigrations({ appliedAt, ...rest }: MigrationState): z.infer<typeof migrationsSchema> {
  const status = rest.missing.length > 0 ? 'behind' : rest.unknown.length > 0 ? 'ahead' : 'current';
  return { status, ...rest, applied_at: appliedAt.toISOString() };
}

const muteAppSchema = z
  .object({
    app: z.string(),
    provider: z.enum(providerNames),
    reason: z.enum(['missing', 'expired', 'refused', 'halted']).openapi({
      description:
        '`missing`: it has devices of the provider and no credential. `refused`: by the provider, and not accepted since. `halted`: what sends its messages stopped itself for a credential.',
    }),
    detail: z.string().nullable(),
    since: answeredInstantOrNull,
  })
  .openapi('MuteApp', { description: 'Sends nothing to these devices until it has another credential.' });

function fromMuteApp({ since, ...rest }: MuteApp): z.infer<typeof muteAppSchema> {
  return { ...rest, since: since?.toISOString() ?? null };
}

const laneBehindSchema = z
  .object({
    app: z.string(),
    provider: z.enum(providerNames),
    number: count,
    since: answeredInstant.openapi({
      description: 'When the oldest message that waits for its first attempt was accepted.',
    }),
  })
  .openapi('LaneBehind');

function fromLaneBehind({ since, ...rest }: LaneBehind): z.infer<typeof laneBehindSchema> {
  return { ...rest, since: since.toISOString() };
}

/** Open to everyone: names of apps and reasons, no ids of people, nothing secret. */
export const readinessSchema = z
  .object({
    status: z.enum(['ready', 'not_ready']),
    database: z.string(),
    database_unusable_since: answeredInstantOrNull.openapi({ description: 'As this process has seen it.' }),
    migrations: migrationsSchema.nullable().openapi({ description: 'Null: the database cannot be used.' }),
    temporal: z.string().openapi({ description: 'Launches are accepted without it: a reconciler starts them later.' }),
    temporal_unreachable_since: answeredInstantOrNull.openapi({ description: 'As this process has seen it.' }),
    unreachable: z.array(unreachableHostSchema).openapi({
      description:
        'Hosts of push providers that workers cannot connect to. Requests are served all the same, and sends wait.',
    }),
    mute_apps: z
      .array(muteAppSchema)
      .openapi({ description: 'Apps that cannot send for want of a credential, at most 100.' }),
    halted_lanes: z.array(haltedLaneSchema).openapi({
      description: 'What sends messages and stopped itself. Messages are accepted all the same, and wait.',
    }),
    lanes_behind: z
      .array(laneBehindSchema)
      .openapi({ description: 'Where messages have waited for their first attempt for 15 s and more, at most 100.' }),
  })
  .openapi('Readiness');

export function fromReadiness(readiness: Readiness): z.infer<typeof readinessSchema> {
  const { database, temporal, migrations } = readiness;
  return {
    status: readiness.isReady ? 'ready' : 'not_ready',
    database: database.is,
    database_unusable_since: database.wrongSince?.toISOString() ?? null,
    migrations: migrations && fromMigrations(migrations),
    temporal: temporal.is,
    temporal_unreachable_since: temporal.wrongSince?.toISOString() ?? null,
    unreachable: readiness.unreachable.map(fromUnreachableHost),
    mute_apps: readiness.muteApps.map(fromMuteApp),
    halted_lanes: readiness.haltedLanes.map(fromHaltedLane),
    lanes_behind: readiness.lanesBehind.map(fromLaneBehind),
  };
}
