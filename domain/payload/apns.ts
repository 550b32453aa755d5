import type { ApnsPushType } from '../message.ts';
import {
  appData,
  checkCollapseId,
  checkCommon,
  checkOwnKeys,
  copyData,
  hasControlCharacter,
  hasText,
  isSilent,
  replacementId,
} from './common.ts';
import type { NotificationContent } from './content.ts';
import { isJsonObject, type JsonObject, jsonBytes, mergeOver } from './json.ts';
import { PayloadError } from './payload-error.ts';

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

/** `apns-topic` is only here when an override names it; otherwise the provider adds its own with `topicSuffix`. */
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

const rule = (topicSuffix: string, maxPayloadBytes = 4096, needsTokenAuth = false): PushTypeRules => ({
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
  location: rule('.location-query', 4096, true),
  liveactivity: rule('.push-type.liveactivity', 4096, true),
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
  const override = message.apns?.payload ?? {};
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

function buildAps({ message }: NotificationContent): JsonObject {
  const aps: JsonObject = {};
  if (hasText(message)) {
    const alert: JsonObject = {};
    if (message.title !== undefined) alert.title = message.title;
    if (message.subtitle !== undefined) alert.subtitle = message.subtitle;
    if (message.body !== undefined) alert.body = message.body;
    aps.alert = alert;
    // Lets the app's notification service extension fetch the picture; APNs wants an alert beside it.
    if (message.imageUrl !== undefined) aps['mutable-content'] = 1;
  }
  if (message.badge !== undefined) aps.badge = message.badge;
  if (message.sound !== undefined) aps.sound = message.sound;
  if (message.category !== undefined) aps.category = message.category;
  if (message.threadId !== undefined) aps['thread-id'] = message.threadId;
  if (isSilent(message)) aps['content-available'] = 1;
  return aps;
}

/** The push type and the payload must say the same: APNs refuses, delays or silently drops what disagrees. */
function checkPayload(payload: JsonObject, pushType: ApnsPushType): void {
  const { aps } = payload;
  if (!isJsonObject(aps)) throw new PayloadError('apns.payload.aps', 'aps must be an object.');
  if (pushType === 'background') {
    for (const key of ['alert', 'sound', 'badge']) {
      if (Object.hasOwn(aps, key)) {
        throw new PayloadError(`apns.payload.aps.${key}`, `A silent message shows nothing, so it cannot have ${key}.`);
      }
    }
    if (aps['content-available'] !== 1) {
      throw new PayloadError('apns.payload.aps.content-available', 'A silent message must keep content-available 1.');
    }
  }
  if (pushType === 'alert' && !['alert', 'sound', 'badge'].some((key) => Object.hasOwn(aps, key))) {
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

function buildHeaders(content: NotificationContent, pushType: ApnsPushType): ApnsHeaders {
  const { message, expiresAt } = content;
  const headers: ApnsHeaders = {
    'apns-push-type': pushType,
    'apns-priority': pushType === 'background' || message.priority === 'normal' ? '5' : '10',
  };
  const expiration = apnsExpiration(message.ttlSeconds, expiresAt);
  if (expiration !== undefined) headers['apns-expiration'] = expiration;
  // Only what is shown can be replaced on the phone; other types get a collapse id if the message asks for one.
  if (message.collapseId !== undefined || pushType === 'alert') headers['apns-collapse-id'] = replacementId(content);
  for (const [name, value] of Object.entries(message.apns?.headers ?? {})) {
    headers[checkedHeaderName(name)] = value;
  }
  checkHeaders(headers, pushType);
  return headers;
}

/** Whole UNIX seconds, rounded down so that nothing is shown late; `0` is "one attempt, never stored" and stays 0. */
export function apnsExpiration(ttlSeconds: number | undefined, expiresAt: Date | undefined): string | undefined {
  if (ttlSeconds === 0) return '0';
  return expiresAt === undefined ? undefined : String(Math.floor(expiresAt.getTime() / 1000));
}

function checkedHeaderName(name: string): ApnsHeaderName {
  const lower = name.toLowerCase();
  switch (lower) {
    case 'apns-topic':
    case 'apns-priority':
    case 'apns-expiration':
    case 'apns-collapse-id':
      return lower;
    case 'apns-push-type':
      throw new PayloadError(
        `apns.headers.${name}`,
        'Set the push type by push_type, so that topic, priority and size follow it.',
      );
    default:
      throw new PayloadError(
        `apns.headers.${name}`,
        'Only apns-topic, apns-priority, apns-expiration and apns-collapse-id can be set.',
      );
  }
}

function checkHeaders(headers: ApnsHeaders, pushType: ApnsPushType): void {
  for (const [name, value] of Object.entries(headers)) {
    if (hasControlCharacter(value) || value.trim() !== value || value === '') {
      throw new PayloadError(`apns.headers.${name}`, 'A header value must be text without control characters.');
    }
  }
  const priority = headers['apns-priority'];
  if (!apnsPriorities.includes(priority)) {
    throw new PayloadError('apns.headers.apns-priority', 'apns-priority is 10, 5 or 1.');
  }
  if (pushType === 'background' && priority === '10') {
    throw new PayloadError('apns.headers.apns-priority', 'A silent message cannot have priority 10: APNs refuses it.');
  }
  const expiration = headers['apns-expiration'];
  if (expiration !== undefined && !/^\d{1,12}$/.test(expiration)) {
    throw new PayloadError('apns.headers.apns-expiration', 'apns-expiration is a whole number of UNIX seconds.');
  }
  const collapseId = headers['apns-collapse-id'];
  if (collapseId !== undefined) checkCollapseId('apns.headers.apns-collapse-id', collapseId);
}
