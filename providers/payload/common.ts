import { define, type JsonObject } from '../../domain/json.ts';
import { type Message, maxTtlSeconds } from '../../domain/message.ts';
import { checkCollapseId } from './collapse-id.ts';
import type { NotificationContent } from './content.ts';
import { PayloadError } from './payload-error.ts';

/** Rules that hold for every provider, and the custom keys that every app receives. */

/** True when the app is woken and nothing is shown: `silent`, or the push type that means the same. */
export function isSilent(message: Message): boolean {
  return message.silent === true || message.pushType === 'background';
}

/** True when there is a text or an image to show. A badge or a sound alone does not count. */
export function hasText(message: Message): boolean {
  return message.title !== undefined || message.subtitle !== undefined || message.body !== undefined;
}

/**
 * The value under which a repeat replaces the first copy on the phone: the message's own collapse id, or one derived from the
 * notification. The first attempt already carries it, because a key that only the repeat carries replaces nothing.
 */
export function replacementId(content: NotificationContent): string {
  return content.message.collapseId ?? content.notificationId;
}

/** The custom keys made of neutral fields, the same for both providers. */
export function appData(content: NotificationContent): JsonObject {
  const { message } = content;
  const keys: JsonObject = { nid: content.notificationId };
  if (message.deepLink !== undefined) keys.deep_link = message.deepLink;
  if (message.iconUrl !== undefined) keys.icon_url = message.iconUrl;
  return keys;
}

/** Keys of `data` (or of an override) that would collide with ours. */
export function checkOwnKeys(message: Message, keys: Iterable<string>, path: string): void {
  const given: Record<string, unknown> = {
    deep_link: message.deepLink,
    icon_url: message.iconUrl,
    image_url: message.imageUrl,
  };
  for (const key of keys) {
    if (key === 'nid') {
      throw new PayloadError(`${path}.nid`, 'The key "nid" carries the notification id to the app and cannot be set.');
    }
    if (Object.hasOwn(given, key) && given[key] !== undefined) {
      throw new PayloadError(`${path}.${key}`, `"${key}" is given twice: as a field of the message and as a key here.`);
    }
  }
}

export function checkCommon(message: Message): void {
  const { ttlSeconds, badge, collapseId } = message;
  if (ttlSeconds !== undefined && !(ttlSeconds >= 0 && ttlSeconds <= maxTtlSeconds)) {
    throw new PayloadError('ttl', `ttl must be between 0 and ${maxTtlSeconds} seconds (four weeks).`);
  }
  checkBadge('badge', badge);
  if (collapseId !== undefined) checkCollapseId('collapse_id', collapseId);
  if (isSilent(message)) checkSilent(message);
}

export function checkBadge(field: string, badge: unknown): void {
  if (badge === undefined || (Number.isInteger(badge) && (badge as number) >= 0)) return;
  throw new PayloadError(field, 'badge must be a whole number of 0 or more; 0 clears the badge.');
}

/** A silent message shows nothing and saves power: APNs refuses or drops everything else under push type background. */
function checkSilent(message: Message): void {
  for (const field of ['title', 'subtitle', 'body', 'sound', 'badge'] as const) {
    if (message[field] !== undefined) {
      throw new PayloadError(field, `A silent message shows nothing, so it cannot have ${field}.`);
    }
  }
  if (message.priority === 'high') {
    throw new PayloadError(
      'priority',
      'A silent message must have normal priority: APNs refuses background pushes at priority 10.',
    );
  }
  if (message.pushType !== undefined && message.pushType !== 'background') {
    throw new PayloadError('push_type', `A silent message has the push type background, not ${message.pushType}.`);
  }
}

/** Whole seconds left until the expiry; at least 1 while any time is left, because 0 means "one attempt, never stored". */
export function remainingSeconds(expiresAt: Date, now: Date): number {
  const ms = expiresAt.getTime() - now.getTime();
  if (ms <= 0) return 0;
  return Math.min(Math.max(Math.floor(ms / 1000), 1), maxTtlSeconds);
}

/** Copies the own keys of `data`, whatever their names. */
export function copyData(into: JsonObject, data: JsonObject | undefined): void {
  for (const [key, value] of Object.entries(data ?? {})) define(into, key, value);
}
