import { type Platform, platforms } from '../../domain/device.ts';
import { define, isJsonObject, type JsonObject, type JsonValue, jsonBytes, mergeOver } from '../../domain/json.ts';
import { type ApnsPushType, apnsPushTypes, type Message, maxTtlSeconds } from '../../domain/message.ts';
import {
  apnsExpiration,
  checkApnsHeaders,
  checkShowsNothing,
  lowerCaseNames,
  maxApnsPayloadBytes,
  showsSomething,
} from '../apns/payload.ts';
import { checkCollapseId, collapseIdHeader } from '../payload/collapse-id.ts';
import {
  appData,
  checkBadge,
  checkCommon,
  checkOwnKeys,
  hasText,
  isSilent,
  remainingSeconds,
  replacementId,
} from '../payload/common.ts';
import type { NotificationContent } from '../payload/content.ts';
import { PayloadError } from '../payload/payload-error.ts';

/**
 * The FCM `Message` resource of a notification without its target.
 * https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
 */
export interface FcmContent {
  message: JsonObject;
  /** Bytes of `notification` and `data` as JSON in UTF-8, as Android gets them: the part that FCM's limit speaks of. */
  payloadBytes: number;
  /**
   * Platforms whose devices could never take the message, and why. Their part is left out of `message`, so that FCM does not
   * refuse it for the other platforms.
   */
  faults: ReadonlyMap<Platform, PayloadError>;
}

/** https://firebase.google.com/docs/cloud-messaging/concept-options: 4096 bytes to devices (2048 only to topics). */
const maxFcmPayloadBytes = 4096;

/** The sender fills these fields; as overrides they would change the recipient, or are output only. */
const targetFields = ['token', 'fid', 'topic', 'condition', 'name'];

/** The part of the message that each platform alone reads, and its rules. */
const partOf = { ios: 'apns', android: 'android', web: 'webpush' } as const satisfies Record<Platform, string>;
const checkPart: Record<Platform, (part: JsonObject, merged: JsonObject, message: Message) => void> = {
  ios: checkApns,
  android: checkAndroid,
  web: checkWebpush,
};

/**
 * Builds, checks and measures the message: the overrides laid over the neutral fields.
 * @param now the instant from which the remaining time to live is counted.
 * @throws {PayloadError} when FCM could never take the message, whatever the platform.
 */
export function buildFcmContent(content: NotificationContent, now: Date): FcmContent {
  const { message } = content;
  checkCommon(message);
  const override = withOneSpelling(message.fcm ?? {});
  checkOverride(override);
  const built: JsonObject = {};
  if (hasText(message) && !isSilent(message)) built.notification = buildNotification(message);
  built.data = buildData(content);
  built.android = buildAndroid(content, now);
  built.apns = buildApns(content, override);
  const webpush = buildWebpush(content, now);
  if (webpush !== undefined) built.webpush = webpush;

  const merged = mergeOver(built, override);
  checkData(merged.data, 'fcm.data');
  checkNotification(merged.notification);
  checkSize('message', sizeOf(merged.notification, merged.data));

  const faults = new Map<Platform, PayloadError>();
  for (const platform of platforms) {
    const part = merged[partOf[platform]];
    try {
      if (isJsonObject(part)) checkPart[platform](part, merged, message);
    } catch (error) {
      if (!(error instanceof PayloadError)) throw error;
      faults.set(platform, error);
      delete merged[partOf[platform]];
    }
  }
  return { message: merged, payloadBytes: sizeOn(merged, merged.android), faults };
}

/** @throws {PayloadError} also when only one of these platforms could never take the message. */
export function measureFcmContent(content: NotificationContent, reached: readonly Platform[]): number {
  const { payloadBytes, faults } = buildFcmContent(content, new Date(0));
  for (const platform of reached) {
    const fault = faults.get(platform);
    if (fault !== undefined) throw fault;
  }
  return payloadBytes;
}

function buildNotification(message: Message): JsonObject {
  const notification: JsonObject = {};
  if (message.title !== undefined) notification.title = message.title;
  if (message.body !== undefined) notification.body = message.body;
  if (message.imageUrl !== undefined) notification.image = message.imageUrl;
  return notification;
}

/** FCM takes text only: strings as they are, numbers, booleans, objects and lists as JSON text, null left out. */
function buildData(content: NotificationContent): JsonObject {
  const { message } = content;
  const data: JsonObject = {};
  checkOwnKeys(message, Object.keys(message.data ?? {}), 'data');
  for (const [key, value] of Object.entries(message.data ?? {})) {
    checkDataKey(key, 'data');
    if (value !== null) define(data, key, typeof value === 'string' ? value : JSON.stringify(value));
  }
  // Without a text there is no notification to hold the picture, so the app gets the picture's address.
  if (message.imageUrl !== undefined && (isSilent(message) || !hasText(message))) data.image_url = message.imageUrl;
  return Object.assign(data, appData(content));
}

function buildAndroid(content: NotificationContent, now: Date): JsonObject {
  const { message } = content;
  const silent = isSilent(message);
  // Firebase's pages disagree on the default, so the priority is always sent.
  const android: JsonObject = { priority: silent || message.priority === 'normal' ? 'NORMAL' : 'HIGH' };
  const ttl = fcmTtlSeconds(content, now);
  if (ttl !== undefined) android.ttl = `${ttl}s`;
  // A collapse key also puts a message under a throttle (20 a device, then one in three minutes), so it is sent only when asked
  // for.
  if (message.collapseId !== undefined) android.collapse_key = message.collapseId;
  if (hasText(message) && !silent) {
    const notification: JsonObject = { tag: replacementId(content) };
    if (message.sound !== undefined) notification.sound = message.sound;
    if (message.badge !== undefined) notification.notification_count = message.badge;
    android.notification = notification;
  }
  return android;
}

/** What iOS devices registered with Firebase get. FCM copies title, body and data into the payload by itself. */
function buildApns(content: NotificationContent, override: JsonObject): JsonObject {
  const { message } = content;
  const silent = isSilent(message);
  const text = hasText(message) && !silent;
  const isShownByOverride = isJsonObject(override.notification) || showsSomething(apsOf(override.apns));
  const shows = text || message.badge !== undefined || message.sound !== undefined || (isShownByOverride && !silent);
  const headers: JsonObject = {
    'apns-push-type': shows ? 'alert' : 'background',
    // FCM answers INVALID_ARGUMENT to a message without notification at priority 10.
    'apns-priority': text && message.priority !== 'normal' ? '10' : '5',
  };
  const expiration = apnsExpiration(message.ttlSeconds, content.expiresAt);
  if (expiration !== undefined) headers['apns-expiration'] = expiration;
  if (message.collapseId !== undefined || text) headers['apns-collapse-id'] = collapseIdHeader(replacementId(content));

  const aps: JsonObject = {};
  if (text && message.subtitle !== undefined) aps.alert = buildAlert(message);
  if (message.badge !== undefined) aps.badge = message.badge;
  if (message.sound !== undefined) aps.sound = message.sound;
  if (message.category !== undefined) aps.category = message.category;
  if (message.threadId !== undefined) aps['thread-id'] = message.threadId;
  if (text && message.imageUrl !== undefined) aps['mutable-content'] = 1;
  if (!shows) aps['content-available'] = 1;

  const apns: JsonObject = { headers };
  if (Object.keys(aps).length > 0) apns.payload = { aps };
  if (text && message.imageUrl !== undefined) apns.fcm_options = { image: message.imageUrl };
  return apns;
}

/** FCM's own notification has no subtitle: a message with one gives the whole alert. */
function buildAlert(message: Message): JsonObject {
  const alert: JsonObject = {};
  if (message.title !== undefined) alert.title = message.title;
  if (message.subtitle !== undefined) alert.subtitle = message.subtitle;
  if (message.body !== undefined) alert.body = message.body;
  return alert;
}

function buildWebpush(content: NotificationContent, now: Date): JsonObject | undefined {
  const { message } = content;
  const webpush: JsonObject = {};
  const headers: JsonObject = { Urgency: isSilent(message) || message.priority === 'normal' ? 'normal' : 'high' };
  const ttl = fcmTtlSeconds(content, now);
  if (ttl !== undefined) headers.TTL = String(ttl);
  webpush.headers = headers;
  if (hasText(message) && !isSilent(message)) {
    const notification: JsonObject = { tag: replacementId(content) };
    if (message.iconUrl !== undefined) notification.icon = message.iconUrl;
    webpush.notification = notification;
    // FCM takes https links only; other schemes are for apps, which read the data key.
    if (message.deepLink?.startsWith('https://')) webpush.fcm_options = { link: message.deepLink };
  }
  return webpush;
}

/** 0 is "now or never" and stays 0; a fraction is rounded down, but never to 0. Undefined: FCM's own four weeks. */
function fcmTtlSeconds({ message, expiresAt }: NotificationContent, now: Date): number | undefined {
  if (message.ttlSeconds === 0) return 0;
  if (expiresAt !== undefined) return Math.max(remainingSeconds(expiresAt, now), 1);
  return message.ttlSeconds === undefined ? undefined : Math.max(Math.floor(message.ttlSeconds), 1);
}

function checkOverride(override: JsonObject): void {
  for (const field of targetFields) {
    if (Object.hasOwn(override, field)) {
      throw new PayloadError(`fcm.${field}`, `fcm.${field} cannot be set: the audience decides who gets the message.`);
    }
  }
  for (const field of ['data', 'android', 'apns', 'webpush', 'notification', 'fcm_options']) {
    const value = override[field];
    if (value !== undefined && value !== null && !isJsonObject(value)) {
      throw new PayloadError(`fcm.${field}`, `fcm.${field} must be an object.`);
    }
    for (const part of ['notification', 'headers', 'payload', 'fcm_options']) {
      const value = inner(override[field], part);
      if (field !== 'data' && value !== undefined && value !== null && !isJsonObject(value)) {
        throw new PayloadError(`fcm.${field}.${part}`, `fcm.${field}.${part} must be an object.`);
      }
    }
  }
  checkNid('fcm.data', override.data);
  for (const part of ['android', 'webpush']) checkNid(`fcm.${part}.data`, inner(override[part], 'data'));
  checkNid('fcm.apns.payload', inner(override.apns, 'payload'));
}

function checkNid(path: string, keys: JsonValue | undefined): void {
  if (isJsonObject(keys) && Object.hasOwn(keys, 'nid')) {
    throw new PayloadError(`${path}.nid`, 'The key "nid" carries the notification id to the app and cannot be set.');
  }
}

function checkNotification(notification: JsonValue | undefined): void {
  for (const key of ['title', 'body', 'image']) {
    const value = inner(notification, key);
    if (value !== undefined && typeof value !== 'string') {
      throw new PayloadError(`fcm.notification.${key}`, `${key} must be a text.`);
    }
  }
}

function checkAndroid(android: JsonObject, merged: JsonObject, message: Message): void {
  if (android.collapse_key !== undefined) checkCollapseId('fcm.android.collapse_key', android.collapse_key);
  if (android.ttl !== undefined && !isTtl(/^(\d{1,7})(\.\d{1,9})?s$/.exec(String(android.ttl)))) {
    throw new PayloadError(
      'fcm.android.ttl',
      `ttl is a text such as "3600s", at most "${maxTtlSeconds}s" (four weeks).`,
    );
  }
  if (android.priority !== undefined && !['NORMAL', 'HIGH'].includes(String(android.priority))) {
    throw new PayloadError('fcm.android.priority', 'priority is NORMAL or HIGH.');
  }
  checkBadge('fcm.android.notification.notification_count', inner(android.notification, 'notification_count'));
  checkData(android.data, 'fcm.android.data');
  checkSize(message.fcm?.android === undefined ? 'message' : 'fcm.android', sizeOn(merged, android));
}

/** The same rules as for messages straight to Apple: FCM only passes this part on. */
function checkApns(apns: JsonObject, merged: JsonObject, message: Message): void {
  const headers = objectOf(apns.headers);
  const pushType = headers['apns-push-type'] ?? 'alert';
  if (!(apnsPushTypes as readonly JsonValue[]).includes(pushType)) {
    throw new PayloadError('fcm.apns.headers.apns-push-type', `apns-push-type is one of ${apnsPushTypes.join(', ')}.`);
  }
  checkApnsHeaders('fcm.apns.headers', { ...headers, 'apns-push-type': pushType }, pushType as ApnsPushType);
  if (typeof headers['apns-collapse-id'] === 'string') {
    headers['apns-collapse-id'] = collapseIdHeader(headers['apns-collapse-id']);
  }

  const payload = objectOf(apns.payload);
  if (payload.aps !== undefined && !isJsonObject(payload.aps)) {
    throw new PayloadError('fcm.apns.payload.aps', 'aps must be an object.');
  }
  const aps = apsOf(apns);
  checkBadge('fcm.apns.payload.aps.badge', aps.badge);
  if (pushType === 'background') {
    checkShowsNothing('fcm.apns.payload.aps', aps);
    if (isSilent(message) && merged.notification !== undefined) {
      throw new PayloadError('fcm.notification', 'A silent message shows nothing, so it cannot have a notification.');
    }
  }
  const bytes = jsonBytes(payload);
  if (bytes > maxApnsPayloadBytes) {
    throw new PayloadError(
      'fcm.apns.payload',
      `The APNs payload has ${bytes} bytes, ${maxApnsPayloadBytes} are allowed.`,
    );
  }
}

/** https://www.rfc-editor.org/rfc/rfc8030 §5.2 (TTL), §5.3 (Urgency), §5.4 (Topic). */
function checkWebpush(webpush: JsonObject, merged: JsonObject, message: Message): void {
  const headers = objectOf(webpush.headers);
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value !== 'string') {
      throw new PayloadError(`fcm.webpush.headers.${name}`, 'FCM takes text only as header values.');
    }
  }
  const { TTL: ttl, Urgency: urgency, Topic: topic } = headers;
  if (ttl !== undefined && !isTtl(/^(\d{1,7})$/.exec(String(ttl)))) {
    throw new PayloadError('fcm.webpush.headers.TTL', `TTL is a whole number of seconds, at most ${maxTtlSeconds}.`);
  }
  if (urgency !== undefined && !['very-low', 'low', 'normal', 'high'].includes(String(urgency))) {
    throw new PayloadError('fcm.webpush.headers.Urgency', 'Urgency is very-low, low, normal or high.');
  }
  if (topic !== undefined && !/^[\w-]{1,32}$/.test(String(topic))) {
    throw new PayloadError('fcm.webpush.headers.Topic', 'Topic has 1 to 32 letters, digits, "-" and "_".');
  }
  const link = inner(webpush.fcm_options, 'link');
  if (link !== undefined && !(typeof link === 'string' && link.startsWith('https://'))) {
    throw new PayloadError('fcm.webpush.fcm_options.link', 'FCM takes https links only.');
  }
  checkData(webpush.data, 'fcm.webpush.data');
  checkSize(message.fcm?.webpush === undefined ? 'message' : 'fcm.webpush', sizeOn(merged, webpush));
}

function isTtl(match: RegExpExecArray | null): boolean {
  return match !== null && Number.parseFloat(match[0]) <= maxTtlSeconds;
}

function checkData(data: JsonValue | undefined, path: string): void {
  if (data === undefined) return;
  if (!isJsonObject(data)) throw new PayloadError(path, `${path} must be an object of texts.`);
  for (const [key, value] of Object.entries(data)) {
    checkDataKey(key, path);
    if (typeof value !== 'string') throw new PayloadError(`${path}.${key}`, 'FCM takes text only as data values.');
  }
}

/**
 * Keys that FCM refuses (https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages, `data`). Others that merely look
 * special, such as `notification` or `google_id`, work and are left alone.
 */
function checkDataKey(key: string, path: string): void {
  if (key === 'from' || key === 'message_type' || key.startsWith('google.') || key.startsWith('gcm.notification.')) {
    throw new PayloadError(
      `${path}.${key}`,
      `The data key "${key}" is reserved by FCM: "from", "message_type" and all that begins with "google." or "gcm.notification.".`,
    );
  }
}

/** A platform's own part replaces the common one: its data as a whole, its notification field by field. */
function sizeOn(merged: JsonObject, part: JsonValue | undefined): number {
  const common = isJsonObject(merged.notification) ? merged.notification : undefined;
  const own = inner(part, 'notification');
  const notification = isJsonObject(own) ? mergeOver(common ?? {}, own) : common;
  return sizeOf(notification, inner(part, 'data') ?? merged.data);
}

function sizeOf(notification: JsonValue | undefined, data: JsonValue | undefined): number {
  return (notification === undefined ? 0 : jsonBytes(notification)) + (data === undefined ? 0 : jsonBytes(data));
}

function checkSize(field: string, bytes: number): void {
  if (bytes <= maxFcmPayloadBytes) return;
  throw new PayloadError(field, `The FCM payload has ${bytes} bytes, ${maxFcmPayloadBytes} are allowed.`);
}

function apsOf(apns: JsonValue | undefined): JsonObject {
  return objectOf(inner(inner(apns, 'payload'), 'aps'));
}

function objectOf(value: JsonValue | undefined): JsonObject {
  return isJsonObject(value) ? value : {};
}

function inner(object: JsonValue | undefined, key: string): JsonValue | undefined {
  return isJsonObject(object) && Object.hasOwn(object, key) ? object[key] : undefined;
}

/**
 * FCM takes field names as `collapse_key` and as `collapseKey`, header names in any case, and enums in any case; we use the first
 * form. An override in another form would be a second value of the same field, which FCM refuses.
 */
function withOneSpelling(override: JsonObject): JsonObject {
  const renamed = withSnakeCaseNames(override);
  const { android, apns, webpush } = renamed;
  if (isJsonObject(android) && typeof android.priority === 'string') android.priority = android.priority.toUpperCase();
  if (isJsonObject(apns) && isJsonObject(apns.headers)) apns.headers = lowerCaseNames(apns.headers);
  if (isJsonObject(webpush) && isJsonObject(webpush.headers)) {
    webpush.headers = Object.fromEntries(
      Object.entries(webpush.headers).map(([name, value]) => [webpushHeaders[name.toLowerCase()] ?? name, value]),
    );
  }
  return renamed;
}

const webpushHeaders: Record<string, string> = { ttl: 'TTL', urgency: 'Urgency', topic: 'Topic' };

/** Objects whose keys are the app's or another protocol's, not FCM's field names. */
const freeKeyed = new Set(['data', 'headers', 'payload']);

function withSnakeCaseNames(object: JsonObject, isWebpush = false): JsonObject {
  const renamed: JsonObject = {};
  for (const [key, value] of Object.entries(object)) {
    const name = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const isFree = freeKeyed.has(name) || (isWebpush && name === 'notification');
    define(renamed, name, isJsonObject(value) && !isFree ? withSnakeCaseNames(value, name === 'webpush') : value);
  }
  return renamed;
}
