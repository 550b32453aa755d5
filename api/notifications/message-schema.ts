import { z } from '@hono/zod-openapi';
import type { App } from '../../domain/app.ts';
import type { Audience, Condition } from '../../domain/audience.ts';
import { byProvider, type Platform, type ProviderName, providerNames } from '../../domain/device.ts';
import type { JsonObject } from '../../domain/json.ts';
import { apnsPushTypes, type Message, maxTtlSeconds, messagePriorities } from '../../domain/message.ts';
import type { MessageOverride } from '../../providers/description.ts';
import { measureMessage } from '../../providers/payload/check.ts';
import { providers } from '../../providers/registry.ts';
import { jsonObject } from '../http/json-object.ts';

const dataLimits = { maxKeys: 100, maxKeyBytes: 128, maxBytes: 16_384, maxDepth: 8 };
const text = z.string().max(4_096);
const word = z.string().min(1).max(255);

const httpsUrl = z
  .string()
  .max(2_048)
  .refine((url) => /^https:\/\//i.test(url) && URL.canParse(url), 'Must be an https URL.')
  .openapi({ format: 'uri', example: 'https://example.com/image.png' });

const anyUri = z
  .string()
  .max(2_048)
  .refine((uri) => /^[a-z][a-z0-9+.-]*:[^\s]+$/i.test(uri), 'Must be a URI with its scheme, such as shop://cart.')
  .openapi({ format: 'uri', example: 'shop://cart/42' });

const texts = z.record(z.string().max(128), z.string().max(1_024));

const messageExample = {
  title: 'Spring sale',
  body: 'Everything in the shop, today only.',
  deep_link: 'shop://sale',
  data: { campaign: 'spring' },
  ttl: 86_400,
};

/** What a provider takes for itself alone, as its description says. */
function overrideSchema({ description, members }: MessageOverride): z.ZodType<JsonObject> {
  if (members === undefined) return jsonObject(dataLimits, description);
  const schemas = Object.entries(members).map(([name, member]) => [
    name,
    (member === 'texts' ? texts : jsonObject(dataLimits, member.description)).optional(),
  ]);
  return z.strictObject(Object.fromEntries(schemas)).openapi({ description }) as unknown as z.ZodType<JsonObject>;
}

export const messageSchema = z
  .strictObject({
    title: text.optional(),
    subtitle: text.optional().openapi({ description: 'APNs only.' }),
    body: text.optional(),
    image_url: httpsUrl.optional(),
    icon_url: httpsUrl.optional().openapi({ description: 'Carried to the app as the key icon_url.' }),
    deep_link: anyUri.optional().openapi({ description: 'Carried to the app as the key deep_link.' }),
    data: jsonObject(
      dataLimits,
      'Custom keys. APNs gets real JSON types; FCM gets text: objects as JSON text, null left out.',
    ).optional(),
    badge: z.int().min(0).max(2_147_483_647).optional().openapi({ description: '0 clears the badge.' }),
    sound: word.optional(),
    category: word.optional(),
    thread_id: word.optional(),
    collapse_id: z.string().min(1).max(64).optional().openapi({ description: 'At most 64 bytes of UTF-8.' }),
    ttl: z
      .int(`Must be a whole number of seconds from 0 to ${maxTtlSeconds}.`)
      .min(0)
      .max(maxTtlSeconds)
      .optional()
      .openapi({
        description:
          'Whole seconds from launch, or from scheduled_at, up to four weeks. 0: one attempt by the provider, not kept.',
      }),
    priority: z.enum(messagePriorities).optional().openapi({ description: 'Default: high, normal when silent.' }),
    silent: z.boolean().optional().openapi({
      description: 'Wakes the app and shows nothing: no title, body, sound or badge, and no priority high.',
    }),
    push_type: z.enum(apnsPushTypes).optional().openapi({ description: 'Default: alert, background when silent.' }),
    ...byProvider((name) => overrideSchema(providers[name].override).optional()),
  })
  .openapi('Message', { example: messageExample });

type MessageBody = z.infer<typeof messageSchema>;

/** Wire names beside the names in the domain, where they differ. */
const renamed = [
  ['image_url', 'imageUrl'],
  ['icon_url', 'iconUrl'],
  ['deep_link', 'deepLink'],
  ['thread_id', 'threadId'],
  ['collapse_id', 'collapseId'],
  ['ttl', 'ttlSeconds'],
  ['push_type', 'pushType'],
] as const;

/** With the app's time to live, where the message names none. */
export function toMessage(body: MessageBody, { defaultTtlSeconds }: Pick<App, 'defaultTtlSeconds'>): Message {
  const message = rename(body, renamed) as Message;
  if (message.ttlSeconds !== undefined || defaultTtlSeconds === undefined) return message;
  return { ...message, ttlSeconds: defaultTtlSeconds };
}

export function fromMessage(message: Message): MessageBody {
  const reversed = renamed.map(([wire, domain]) => [domain, wire] as const);
  return rename(message, reversed) as MessageBody;
}

function rename(from: object, names: readonly (readonly [string, string])[]): object {
  const map = new Map(names);
  return Object.fromEntries(Object.entries(from).map(([key, value]) => [map.get(key) ?? key, value]));
}

/**
 * Size, reserved keys and contradictions, for every provider and platform that the audience can hold.
 * @throws {PayloadError} naming the field.
 */
export function checkForAudience(message: Message, { condition }: Audience): void {
  for (const provider of providerNames) {
    const reached = providers[provider].platforms.filter(
      (platform) => condition === undefined || isPossible({ provider, platform }, condition),
    );
    if (reached.length > 0) measureMessage(message, provider, reached);
  }
}

/** False where the condition plainly asks for others: `provider` or `platform` by eq or in, alone or under `and`. */
function isPossible(device: { provider: ProviderName; platform: Platform }, condition: Condition): boolean {
  if ('and' in condition) return condition.and.every((part) => isPossible(device, part));
  if (!('field' in condition) || (condition.operator !== 'eq' && condition.operator !== 'in')) return true;
  if (condition.field !== 'provider' && condition.field !== 'platform') return true;
  return [condition.value].flat().includes(device[condition.field]);
}
