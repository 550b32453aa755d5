import { z } from '@hono/zod-openapi';
import type { App, AppSettings } from '../../domain/app.ts';
import { apnsEnvironments, byProvider, providerNames } from '../../domain/device.ts';
import type { JsonObject } from '../../domain/json.ts';
import { maxTtlSeconds } from '../../domain/message.ts';
import { inDoubtPolicies } from '../../domain/notification-state.ts';
import { topicProblem } from '../../providers/apns/topic.ts';
import { count } from '../http/counts.ts';
import { answeredInstant } from '../http/instant.ts';
import { nextCursor } from '../http/paging.ts';

const topic = z
  .string()
  .min(1)
  .max(200)
  .superRefine((text, context) => {
    const problem = topicProblem(text);
    if (problem !== undefined) context.addIssue({ code: 'custom', message: `It ${problem}.` });
  })
  .openapi({ pattern: '^[A-Za-z0-9._-]+$', example: 'com.example.shop' });

export const ratePerSecond = z
  .int()
  .min(1)
  .max(1_000_000)
  .nullable()
  .openapi({ description: 'Devices per second over all workers, of sends and messages together; null: no limit.' });

const settings = {
  apns_topic: topic.nullable().openapi({
    description: 'The bundle id. Null: that of the credential from files, and a message may name any topic.',
  }),
  apns_topics: z
    .array(topic)
    .max(50)
    .refine((topics) => new Set(topics).size === topics.length, 'Names a topic twice.')
    .openapi({
      uniqueItems: true,
      description:
        'Further bundle ids that a message may name by apns.headers.apns-topic, with the suffix of its push type.',
    }),
  apns_environment: z
    .enum(apnsEnvironments)
    .openapi({ description: 'Of devices that name none. Default: production.' }),
  fcm_project_id: z
    .string()
    .regex(/^[a-z][a-z0-9.:-]{3,99}$/, 'Must be the id of a Firebase project, such as shop-4711.')
    .nullable()
    .openapi({ description: "Null: the service account's." }),
  default_ttl_seconds: z
    .int()
    .min(0)
    .max(maxTtlSeconds)
    .nullable()
    .openapi({ description: 'The ttl of messages that name none; null: they have none.' }),
  default_in_doubt_policy: z
    .enum(inDoubtPolicies)
    .openapi({ description: 'Of notifications and messages that name none. Default: redeliver.' }),
  max_devices: z.int().min(0).max(1_000_000_000_000).nullable().openapi({
    description: 'Registrations of further devices are refused; null: no limit. Counted every few seconds.',
  }),
};

const rates = z.strictObject(byProvider(() => ratePerSecond.optional()));

const changeable = {
  apns_topic: settings.apns_topic.optional(),
  apns_topics: settings.apns_topics.nullable().optional(),
  apns_environment: settings.apns_environment.nullable().optional(),
  fcm_project_id: settings.fcm_project_id.optional(),
  default_ttl_seconds: settings.default_ttl_seconds.optional(),
  default_in_doubt_policy: settings.default_in_doubt_policy.nullable().optional(),
  max_devices: settings.max_devices.optional(),
  rates: rates.optional(),
};

const appName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'Must be 1 to 63 of a-z, 0-9 and -, and not begin with -.')
  .openapi({ description: 'In URLs and claims: it cannot be changed.', example: 'shop' });

export const newAppSchema = z.strictObject({ name: appName, ...changeable }).openapi('NewApp', {
  example: { name: 'shop', apns_topic: 'com.example.shop', default_ttl_seconds: 86_400, rates: { fcm: 5_000 } },
});

export const appChangeSchema = z
  .strictObject(changeable)
  .openapi('AppChange', { description: 'Null clears a field.', minProperties: 1, example: { max_devices: 1_000_000 } });

export type AppChangeBody = z.infer<typeof appChangeSchema>;

const deletionSchema = z
  .object({
    requested_at: answeredInstant,
    stage: z.enum(['ending', 'deleting']).openapi({
      description: 'ending: sends and messages that are under way are being cancelled; deleting: rows are.',
    }),
    devices: count,
    notifications: count,
    messages: count,
  })
  .openapi('AppDeletion', { description: 'What is gone so far.' });

export const appSchema = z
  .object({
    name: appName,
    ...settings,
    rates: z.object(byProvider(() => ratePerSecond)),
    created_at: answeredInstant,
    updated_at: answeredInstant,
    deletion: deletionSchema.nullable().openapi({ description: 'Set: the app is being deleted.' }),
  })
  .openapi('App');

export const appPageSchema = z.object({ apps: z.array(appSchema), next_cursor: nextCursor }).openapi('AppPage');

export function toSettings(body: AppChangeBody): Partial<AppSettings> {
  const named = Object.entries(body).filter(([, value]) => value !== undefined);
  return Object.fromEntries(named.map(([wire, value]) => [renamed[wire as keyof AppChangeBody], value ?? undefined]));
}

const renamed = {
  apns_topic: 'apnsTopic',
  apns_topics: 'apnsTopics',
  apns_environment: 'apnsEnvironment',
  fcm_project_id: 'fcmProjectId',
  default_ttl_seconds: 'defaultTtlSeconds',
  default_in_doubt_policy: 'defaultInDoubtPolicy',
  max_devices: 'maxDevices',
  rates: 'rates',
} as const satisfies Record<keyof AppChangeBody, keyof AppSettings>;

export function fromApp(app: App): z.infer<typeof appSchema> {
  const { deletion } = app;
  return {
    name: app.name,
    ...fromSettings(app),
    created_at: app.createdAt.toISOString(),
    updated_at: app.updatedAt.toISOString(),
    deletion: deletion
      ? {
          requested_at: deletion.requestedAt,
          stage: deletion.cancelledAt === undefined ? 'ending' : 'deleting',
          devices: deletion.devices,
          notifications: deletion.notifications,
          messages: deletion.messages,
        }
      : null,
  };
}

export function fromSettings(app: App) {
  return {
    apns_topic: app.apnsTopic ?? null,
    apns_topics: app.apnsTopics,
    apns_environment: app.apnsEnvironment,
    fcm_project_id: app.fcmProjectId ?? null,
    default_ttl_seconds: app.defaultTtlSeconds ?? null,
    default_in_doubt_policy: app.defaultInDoubtPolicy,
    max_devices: app.maxDevices ?? null,
    rates: app.rates,
  } satisfies JsonObject;
}

export const rateParams = z.object({
  app: z.string().openapi({ description: 'Its name.', example: 'default' }),
  provider: z.enum(providerNames),
});
