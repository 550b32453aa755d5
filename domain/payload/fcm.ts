import type { JsonValue, Message } from '../message.ts';
import { apnsExpiration } from './apns.ts';
import { appData, checkCommon, checkOwnKeys, hasText, isSilent, remainingSeconds, replacementId } from './common.ts';
import type { NotificationContent } from './content.ts';
import { define, isJsonObject, type JsonObject, jsonBytes, mergeOver } from './json.ts';
import { PayloadError } from './payload-error.ts';

/**
 * The FCM `Message` resource of a notification without its target.
 * https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
 */
export interface FcmContent {
  message: JsonObject;
  /** Bytes of `notification` and `data` as JSON in UTF-8: the part that FCM's limit speaks of. */
  payloadBytes: number;
}

/** https://firebase.google.com/docs/cloud-messaging/concept-options: 4096 bytes to devices (2048 only to topics). */
export const maxFcmPayloadBytes = 4096;

/** The sender fills these; as overrides they would change who gets the message, or are output only. */
const targetFields = ['token', 'fid', 'topic', 'condition', 'name'];

/**
 * Builds, checks and measures.
 * @param now the instant from which the remaining time to live is counted.
 * @throws {PayloadError} when FCM could never take the message.
 */
export function buildFcmContent(content: NotificationContent, now: Date): FcmContent {
  const { message } = content;
  checkCommon(message);
  const built: JsonObject = {};
  if (hasText(message) && !isSilent(message)) built.notification = buildNotification(message);
  built.data = buildData(content);
  built.android = buildAndroid(content, now);
  built.apns = buildApns(content);
  const webpush = buildWebpush(content, now);
  if (webpush !== undefined) built.webpush = webpush;

  const override = withSnakeCaseNames(message.fcm ?? {});
  checkOverride(override);
  const merged = mergeOver(built, override);
  checkData(merged.data, 'fcm.data');
  if (isJsonObject(merged.android)) checkData(merged.android.data, 'fcm.android.data');

  const payloadBytes = measure(merged);
  if (payloadBytes > maxFcmPayloadBytes) {
    throw new PayloadError('message', `The FCM payload has ${payloadBytes} bytes, ${maxFcmPayloadBytes} are allowed.`);
  }
  return { message: merged, payloadBytes };
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
  // Without a text there is no notification to hold the picture, so the app gets its address.
  if (message.imageUrl !== undefined && (isSilent(message) || !hasText(message))) data.image_url = message.imageUrl;
  return Object.assign(data, appData(content));
}

function buildAndroid(content: NotificationContent, now: Date): JsonObject {
  const { message } = content;
  const silent = isSilent(message);
  // Firebase's pages disagree on the default, so it is always said.
  const android: JsonObject = { priority: silent || message.priority === 'normal' ? 'NORMAL' : 'HIGH' };
  const ttl = fcmTtlSeconds(content, now);
  if (ttl !== undefined) android.ttl = `${ttl}s`;
  // A collapse key also puts a message under a throttle of 20 a device, then one in three minutes: only when asked for.
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
function buildApns(content: NotificationContent): JsonObject {
  const { message } = content;
  const silent = isSilent(message);
  const text = hasText(message) && !silent;
  const showsSomething = text || message.badge !== undefined || message.sound !== undefined;
  const headers: JsonObject = {
    'apns-push-type': showsSomething ? 'alert' : 'background',
    // FCM answers INVALID_ARGUMENT to a message without notification at priority 10.
    'apns-priority': text && message.priority !== 'normal' ? '10' : '5',
  };
  const expiration = apnsExpiration(message.ttlSeconds, content.expiresAt);
  if (expiration !== undefined) headers['apns-expiration'] = expiration;
  if (message.collapseId !== undefined || text) headers['apns-collapse-id'] = replacementId(content);

  const aps: JsonObject = {};
  if (text && message.subtitle !== undefined) aps.alert = buildAlert(message);
  if (message.badge !== undefined) aps.badge = message.badge;
  if (message.sound !== undefined) aps.sound = message.sound;
  if (message.category !== undefined) aps.category = message.category;
  if (message.threadId !== undefined) aps['thread-id'] = message.threadId;
  if (text && message.imageUrl !== undefined) aps['mutable-content'] = 1;
  if (!showsSomething) aps['content-available'] = 1;

  const apns: JsonObject = { headers };
  if (Object.keys(aps).length > 0) apns.payload = { aps };
  if (text && message.imageUrl !== undefined) apns.fcm_options = { image: message.imageUrl };
  return apns;
}

/** FCM's own notification has no subtitle: where there is one, the alert is given whole. */
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
  }
  if (isJsonObject(override.data) && Object.hasOwn(override.data, 'nid')) {
    throw new PayloadError('fcm.data.nid', 'The key "nid" carries the notification id to the app and cannot be set.');
  }
}

function checkData(data: JsonValue | undefined, path: string): void {
  if (!isJsonObject(data)) {
    if (data === undefined) return;
    throw new PayloadError(path, `${path} must be an object of texts.`);
  }
  for (const [key, value] of Object.entries(data)) {
    checkDataKey(key, path);
    if (typeof value !== 'string') throw new PayloadError(`${path}.${key}`, 'FCM takes text only as data values.');
  }
}

/**
 * Keys that FCM refuses or that never reach the app (https://firebase.google.com/docs/cloud-messaging/error-codes,
 * INVALID_ARGUMENT). Others that merely look special, such as `notification`, work and are left alone.
 */
function checkDataKey(key: string, path: string): void {
  if (key === 'from' || key === 'message_type' || key.startsWith('google') || key.startsWith('gcm')) {
    throw new PayloadError(
      `${path}.${key}`,
      `The data key "${key}" is reserved by FCM: "from", "message_type" and all that begins with "google" or "gcm".`,
    );
  }
}

function measure(message: JsonObject): number {
  const { notification, data, android } = message;
  let bytes = notification === undefined ? 0 : jsonBytes(notification);
  const androidData = isJsonObject(android) ? android.data : undefined;
  const dataBytes = data === undefined ? 0 : jsonBytes(data);
  // Android's own data replaces the common one on Android: the larger counts.
  bytes += Math.max(dataBytes, androidData === undefined ? 0 : jsonBytes(androidData));
  return bytes;
}

/** Objects whose keys are the app's or another protocol's, not FCM's field names. */
const freeKeyed = new Set(['data', 'headers', 'payload']);

/**
 * FCM takes field names as `collapse_key` and as `collapseKey`; ours are the former. An override in the other form would
 * stand beside ours as a second value of one field, which FCM refuses.
 */
function withSnakeCaseNames(object: JsonObject, isWebpush = false): JsonObject {
  const renamed: JsonObject = {};
  for (const [key, value] of Object.entries(object)) {
    const name = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const isFree = freeKeyed.has(name) || (isWebpush && name === 'notification');
    define(renamed, name, isJsonObject(value) && !isFree ? withSnakeCaseNames(value, name === 'webpush') : value);
  }
  return renamed;
}
