import { isJsonObject, type JsonObject, type JsonValue, jsonBytes, mergeOver } from '../../domain/json.ts';
import type { ApnsPushType, Message } from '../../domain/message.ts';
import { checkCollapseId, collapseIdHeader, hasControlCharacter } from '../payload/collapse-id.ts';
import {
  appData,
  checkBadge,
  checkCommon,
  checkOwnKeys,
  copyData,
  hasText,
  isSilent,
  replacementId,
} from '../payload/common.ts';
import type { NotificationContent } from '../payload/content.ts';
import { PayloadError } from '../payload/payload-error.ts';

/**
 * The APNs request of a notification, as far as it does not depend on the device: JSON payload and `apns-*` headers.
 * https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification and
 * https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
 */
export interface ApnsContent {
  pushType: ApnsPushType;
  payload: JsonObject;
  /** Bytes of the payload's JSON in UTF-8. */
  payloadBytes: number;
  headers: ApnsHeaders;
}

/** `apns-topic` is here only when an override names it; otherwise the provider adds its own topic with `topicSuffix`. */
export type ApnsHeaders = Partial<Record<ApnsHeaderName, string>> & {
  'apns-push-type': string;
  'apns-priority': string;
};

export type ApnsHeaderName = 'apns-topic' | 'apns-push-type' | 'apns-priority' | 'apns-expiration' | 'apns-collapse-id';

interface PushTypeRules {
  /** What follows the bundle id in `apns-topic`. */
  topicSuffix: string;
  maxPayloadBytes: number;
  /** Certificates serve only some push types. */
  needsTokenAuth: boolean;
}

/** VoIP alone may be larger. */
export const maxApnsPayloadBytes = 4096;

const rule = (topicSuffix: string, maxPayloadBytes = maxApnsPayloadBytes, needsTokenAuth = false): PushTypeRules => ({
  topicSuffix,
  maxPayloadBytes,
  needsTokenAuth,
});

export const apnsPushTypeRules = {
  alert: rule(''),
  background: rule(''),
  voip: rule('.voip', 5120),
  complication: rule('.complication'),
  fileprovider: rule('.pushkit.fileprovider'),
  location: rule('.location-query', maxApnsPayloadBytes, true),
  liveactivity: rule('.push-type.liveactivity', maxApnsPayloadBytes, true),
  pushtotalk: rule('.voip-ptt'),
  widgets: rule('.push-type.widgets'),
  controls: rule('.push-type.controls'),
} as const satisfies Record<ApnsPushType, PushTypeRules>;

/** 10: now. 5: considering the phone's power. 1: power above all, never wakes it. */
const apnsPriorities = ['1', '5', '10'];

/**
 * Builds, checks and measures.
 * @throws {PayloadError} when APNs could never take the message.
 */
export function buildApnsContent(content: NotificationContent): ApnsContent {
  const { message } = content;
  checkCommon(message);
  const pushType = message.pushType ?? (isSilent(message) ? 'background' : 'alert');
  const payload = buildPayload(content);
  checkPayload(payload, pushType);
  const payloadBytes = jsonBytes(payload);
  const { maxPayloadBytes } = apnsPushTypeRules[pushType];
  if (payloadBytes > maxPayloadBytes) {
    throw new PayloadError(
      'message',
      `The APNs payload has ${payloadBytes} bytes, ${maxPayloadBytes} are allowed for push type ${pushType}.`,
    );
  }
  return { pushType, payload, payloadBytes, headers: buildHeaders(content, pushType) };
}

function buildPayload(content: NotificationContent): JsonObject {
  const { message } = content;
  const data = message.data ?? {};
  const override = overrideOf(message).payload ?? {};
  if (Object.hasOwn(data, 'aps')) {
    throw new PayloadError('data.aps', 'The key "aps" is reserved by APNs; use apns.payload to add to it.');
  }
  checkOwnKeys(message, Object.keys(data), 'data');
  if (Object.hasOwn(override, 'nid')) checkOwnKeys(message, ['nid'], 'apns.payload');

  const payload: JsonObject = { aps: buildAps(content) };
  copyData(payload, message.data);
  if (message.imageUrl !== undefined) payload.image_url = message.imageUrl;
  Object.assign(payload, appData(content));
  return mergeOver(payload, override);
}

/** The API has checked this form: see `override` in `description.ts`. */
function overrideOf({ apns }: Message): { headers?: Record<string, string>; payload?: JsonObject } {
  return apns ?? {};
}

function buildAps({ message }: NotificationContent): JsonObject {
  const aps: JsonObject = {};
  if (hasText(message)) {
    const alert: JsonObject = {};
    if (message.title !== undefined) alert.title = message.title;
    if (message.subtitle !== undefined) alert.subtitle = message.subtitle;
    if (message.body !== undefined) alert.body = message.body;
    aps.alert = alert;
    // Lets the app's notification service extension fetch the picture; APNs wants an alert with it.
    if (message.imageUrl !== undefined) aps['mutable-content'] = 1;
  }
  if (message.badge !== undefined) aps.badge = message.badge;
  if (message.sound !== undefined) aps.sound = message.sound;
  if (message.category !== undefined) aps.category = message.category;
  if (message.threadId !== undefined) aps['thread-id'] = message.threadId;
  if (isSilent(message)) aps['content-available'] = 1;
  return aps;
}

/** Push type and payload must agree: otherwise APNs refuses, delays or silently drops the message. */
function checkPayload(payload: JsonObject, pushType: ApnsPushType): void {
  const { aps } = payload;
  if (!isJsonObject(aps)) throw new PayloadError('apns.payload.aps', 'aps must be an object.');
  checkBadge('apns.payload.aps.badge', aps.badge);
  if (pushType === 'background') {
    checkShowsNothing('apns.payload.aps', aps);
    if (aps['content-available'] !== 1) {
      throw new PayloadError('apns.payload.aps.content-available', 'A silent message must keep content-available 1.');
    }
  }
  if (pushType === 'alert' && !showsSomething(aps)) {
    throw new PayloadError('body', 'Nothing to show: give title, body, sound or badge, or set silent.');
  }
  if (pushType === 'liveactivity') {
    for (const key of ['event', 'timestamp']) {
      if (!Object.hasOwn(aps, key)) {
        throw new PayloadError(`apns.payload.aps.${key}`, `A live activity push needs aps.${key}.`);
      }
    }
  }
}

const shownKeys = ['alert', 'sound', 'badge'];

/** Whether these keys of `aps` make a push something to show. */
export function showsSomething(aps: JsonObject): boolean {
  return shownKeys.some((key) => Object.hasOwn(aps, key));
}

/** @throws {PayloadError} naming the key of `aps` that push type background does not allow. */
export function checkShowsNothing(path: string, aps: JsonObject): void {
  for (const key of shownKeys) {
    if (Object.hasOwn(aps, key)) {
      throw new PayloadError(`${path}.${key}`, `A silent message shows nothing, so it cannot have ${key}.`);
    }
  }
}

function buildHeaders(content: NotificationContent, pushType: ApnsPushType): ApnsHeaders {
  const { message, expiresAt } = content;
  const headers: ApnsHeaders = {
    'apns-push-type': pushType,
    'apns-priority': pushType === 'background' || message.priority === 'normal' ? '5' : '10',
  };
  const expiration = apnsExpiration(message.ttlSeconds, expiresAt);
  if (expiration !== undefined) headers['apns-expiration'] = expiration;
  // Only a message that is shown can be replaced on the phone; other types get a collapse id if the message asks for one.
  if (message.collapseId !== undefined || pushType === 'alert') headers['apns-collapse-id'] = replacementId(content);
  Object.assign(headers, lowerCaseNames(overrideOf(message).headers ?? {}));
  checkApnsHeaders('apns.headers', headers, pushType);
  const collapseId = headers['apns-collapse-id'];
  if (collapseId !== undefined) headers['apns-collapse-id'] = collapseIdHeader(collapseId);
  return headers;
}

/** Whole UNIX seconds, rounded down so that no message is shown late; `0` is "one attempt, never stored" and stays 0. */
export function apnsExpiration(ttlSeconds: number | undefined, expiresAt: Date | undefined): string | undefined {
  if (ttlSeconds === 0) return '0';
  return expiresAt === undefined ? undefined : String(Math.floor(expiresAt.getTime() / 1000));
}

/** Header names mean the same in any case; overrides must replace ours and not stand beside them. */
export function lowerCaseNames<Value>(headers: Record<string, Value>): Record<string, Value> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

const headerNames: readonly string[] = [
  'apns-topic',
  'apns-push-type',
  'apns-priority',
  'apns-expiration',
  'apns-collapse-id',
] satisfies ApnsHeaderName[];

/**
 * The rules of APNs for headers, also where FCM passes them on.
 * @throws {PayloadError} naming the field, which begins with `path`.
 */
export function checkApnsHeaders(path: string, headers: Record<string, JsonValue>, pushType: ApnsPushType): void {
  for (const [name, value] of Object.entries(headers)) {
    if (!headerNames.includes(name)) {
      throw new PayloadError(
        `${path}.${name}`,
        'Only apns-topic, apns-priority, apns-expiration and apns-collapse-id can be set here.',
      );
    }
    if (typeof value !== 'string' || hasControlCharacter(value) || value.trim() !== value || value === '') {
      throw new PayloadError(`${path}.${name}`, 'A header value must be text without control characters.');
    }
  }
  if (headers['apns-push-type'] !== pushType) {
    throw new PayloadError(
      `${path}.apns-push-type`,
      'Set the push type by push_type, so that topic, priority and size follow it.',
    );
  }
  const priority = headers['apns-priority'];
  if (priority !== undefined && !apnsPriorities.includes(String(priority))) {
    throw new PayloadError(`${path}.apns-priority`, 'apns-priority is 10, 5 or 1.');
  }
  if (pushType === 'background' && (priority === undefined || priority === '10')) {
    throw new PayloadError(`${path}.apns-priority`, 'A silent message cannot have priority 10: APNs refuses it.');
  }
  const expiration = headers['apns-expiration'];
  if (expiration !== undefined && !/^\d{1,12}$/.test(String(expiration))) {
    throw new PayloadError(`${path}.apns-expiration`, 'apns-expiration is a whole number of UNIX seconds.');
  }
  const topic = headers['apns-topic'];
  const { topicSuffix } = apnsPushTypeRules[pushType];
  if (topic !== undefined && !(/^[A-Za-z0-9._-]+$/.test(String(topic)) && String(topic).endsWith(topicSuffix))) {
    throw new PayloadError(
      `${path}.apns-topic`,
      `apns-topic is a bundle id${topicSuffix && ` and the suffix ${topicSuffix} of push type ${pushType}`}.`,
    );
  }
  const collapseId = headers['apns-collapse-id'];
  if (collapseId !== undefined) checkCollapseId(`${path}.apns-collapse-id`, collapseId);
}
