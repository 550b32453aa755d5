import { z } from '@hono/zod-openapi';
import type { Device } from '../../db/devices.ts';
import { apnsEnvironments, platforms, providerNames, usualProvider } from '../../domain/device.ts';
import type { JsonObject } from '../../domain/json.ts';
import { canonicalLocale } from '../../domain/locale.ts';
import type { DeviceRegistration } from '../../domain/registration.ts';
import { canonicalTimeZone } from '../../domain/time-zone.ts';
import { providers } from '../../providers/registry.ts';
import { type FieldProblem, invalidField } from '../http/api-error.ts';
import { answeredInstant, answeredInstantOrNull, instant } from '../http/instant.ts';
import { jsonObject } from '../http/json-object.ts';
import { nextCursor } from '../http/paging.ts';

export const propertyLimits = { maxKeys: 100, maxKeyBytes: 128, maxBytes: 16_384, maxDepth: 8 };

/** A URL cannot have a part that is one or two dots, however it is escaped: such a device could not be asked for. */
export const externalId = z
  .string()
  .min(1)
  .max(255)
  .regex(/^(?!\.{1,2}$)/, 'Must not be "." or "..": no URL can have that.')
  .openapi({ description: 'The id of the device in the system of the caller.', example: 'phone-4711' });

const properties = jsonObject(propertyLimits, 'What audiences are chosen by. Left out: what is stored stays.');

const registrationExample = {
  platform: 'ios',
  device_token: '1d0e9e6d6dd6a7a5d7c2b1f7f0a3a5be0f5e8c5a6b9d3c2e1f4a7b8c9d0e1f2a',
  user_id: 'user-17',
  properties: { city: 'Kyoto', visits: 3, interests: ['books', 'music'] },
  locale: 'ja-JP',
  time_zone: 'Asia/Tokyo',
};

/** One set of rules for `PUT` and for the rows of an import. */
export const deviceRegistrationSchema = z
  .strictObject({
    platform: z.enum(platforms),
    provider: z
      .enum(providerNames)
      .optional()
      .openapi({ description: 'Default: apns for ios, fcm for android and web.' }),
    device_token: z.string().max(8_192).nullish().openapi({
      description:
        'APNs: hex, 64 digits and more, blanks and angle brackets are stripped. FCM: the registration token. Null or left out: the device is known but cannot be sent to.',
    }),
    apns_environment: z.enum(apnsEnvironments).nullish().openapi({ description: 'Only with provider apns.' }),
    user_id: z.string().max(255).nullish().openapi({ description: 'Empty is the same as null.' }),
    properties: properties.optional(),
    locale: z.string().max(255).nullish().openapi({
      description:
        'A language tag, stored in the form of RFC 5646: de_DE and DE-de become de-DE. What is none is left out, and the answer says so.',
    }),
    time_zone: z.string().max(255).nullish().openapi({
      description:
        'An IANA time zone, stored under its one name: Asia/Calcutta becomes Asia/Kolkata. An unknown one is left out, and the answer says so.',
      example: 'Europe/Berlin',
    }),
  })
  .openapi('DeviceRegistration', { example: registrationExample });

type DeviceRegistrationBody = z.infer<typeof deviceRegistrationSchema>;

// From the shape, not by extend(): OpenAPI would say that by allOf, where two strict objects exclude each other.
export const importRowSchema = z
  .strictObject({
    external_id: externalId,
    ...deviceRegistrationSchema.shape,
    registered_at: instant.optional().openapi({
      description:
        'When the app registered this token, not in the future. A row that is older than what is stored does not replace the token; one that is newer brings a retired device back.',
    }),
  })
  .openapi('ImportRow', { example: { external_id: 'phone-4711', ...registrationExample } });

export const propertyChangesSchema = jsonObject(
  propertyLimits,
  'Keys to set; a null value removes its key, keys that are not named stay.',
).openapi('PropertyChanges', { example: { city: 'Osaka', visits: 4, interests: null } });

export const deviceSchema = z
  .object({
    external_id: z.string(),
    user_id: z.string().nullable(),
    provider: z.enum(providerNames),
    platform: z.enum(platforms),
    device_token: z.string().nullable(),
    apns_environment: z.enum(apnsEnvironments).nullable(),
    properties: z.record(z.string(), z.unknown()),
    locale: z.string().nullable(),
    time_zone: z.string().nullable(),
    bucket: z.int().openapi({ description: '1 to 10 000, random, stays for life: for gradual roll-out and hold-out.' }),
    registered_at: answeredInstant.openapi({ description: 'The last time that the app registered this token.' }),
    retired_at: answeredInstantOrNull.openapi({ description: 'Null while the device can be sent to.' }),
    retired_reason: z.string().nullable().openapi({
      description: "The provider's reason, or token_moved: another device registered the token.",
    }),
    created_at: answeredInstant,
    updated_at: answeredInstant,
  })
  .openapi('Device');

const warning = z.object({ field: z.string(), message: z.string() });

export const registeredDeviceSchema = z
  .object({
    ...deviceSchema.shape,
    warnings: z
      .array(warning)
      .optional()
      .openapi({ description: 'Fields that were left out because their value is not known. The rest is stored.' }),
  })
  .openapi('RegisteredDevice');

export const devicePageSchema = z
  .object({ devices: z.array(deviceSchema), next_cursor: nextCursor })
  .openapi('DevicePage');

/**
 * `warnings` name the fields that a phone reports of itself and whose values are not known here: the device is worth more than
 * its locale.
 * @throws {ApiError} 422 for what a schema cannot see: rules between fields, the form of the token.
 */
export function toRegistration(
  externalIdText: string,
  body: DeviceRegistrationBody,
): { registration: DeviceRegistration; warnings: FieldProblem[] } {
  const provider = body.provider ?? usualProvider[body.platform];
  if (!providers[provider].platforms.includes(body.platform)) {
    const usual = usualProvider[body.platform];
    throw invalidField('provider', `A device of platform ${body.platform} is reached through ${usual}.`);
  }
  if (body.apns_environment && provider !== 'apns') {
    throw invalidField('apns_environment', 'Only a device of provider apns has an APNs environment.');
  }
  const locale = body.locale ? canonicalLocale(body.locale) : null;
  const timeZone = body.time_zone ? canonicalTimeZone(body.time_zone) : null;
  const warnings: FieldProblem[] = [];
  if (locale === undefined) warnings.push({ field: 'locale', message: notALocale });
  if (timeZone === undefined) warnings.push({ field: 'time_zone', message: notATimeZone });
  const registration = {
    externalId: externalIdText,
    userId: body.user_id || null,
    provider,
    platform: body.platform,
    deviceToken: typeof body.device_token === 'string' ? checkedToken(provider, body.device_token) : null,
    apnsEnvironment: body.apns_environment ?? null,
    properties: body.properties && withoutNulls(body.properties),
    locale: locale ?? null,
    timeZone: timeZone ?? null,
  };
  return { registration, warnings };
}

const notALocale = 'Left out: not a language tag such as de or pt-BR.';
const notATimeZone = 'Left out: not an IANA time zone such as Europe/Berlin.';

function checkedToken(provider: DeviceRegistration['provider'], text: string): string {
  const result = providers[provider].normaliseDeviceToken(text);
  if (!result.ok) throw invalidField('device_token', result.message);
  return result.deviceToken;
}

/** Null means "not there" in `PATCH`, so it means the same here. */
function withoutNulls(given: JsonObject): JsonObject {
  const entries = Object.entries(given);
  const kept = entries.filter(([, value]) => value !== null);
  return kept.length === entries.length ? given : (Object.fromEntries(kept) as JsonObject);
}

export function fromDevice(device: Device): z.infer<typeof deviceSchema> {
  return {
    external_id: device.externalId,
    user_id: device.userId,
    provider: device.provider,
    platform: device.platform,
    device_token: device.deviceToken,
    apns_environment: device.apnsEnvironment,
    properties: device.properties,
    locale: device.locale,
    time_zone: device.timeZone,
    bucket: device.bucket,
    registered_at: device.registeredAt.toISOString(),
    retired_at: device.retiredAt?.toISOString() ?? null,
    retired_reason: device.retiredReason,
    created_at: device.createdAt.toISOString(),
    updated_at: device.updatedAt.toISOString(),
  };
}
