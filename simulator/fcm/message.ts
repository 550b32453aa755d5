/** Parses and checks the body of `messages:send` as FCM's front end and FCM itself do. */
import { type FcmError, invalidArgument, invalidPayload } from './errors.ts';
import { canonicalName, type FieldType, type MessageFields, sendRequestFields } from './message-fields.ts';

export interface FcmMessage {
  registrationToken: string;
  /** The data key `nid`; undefined when absent. */
  notificationId: string | undefined;
  isValidateOnly: boolean;
  error: FcmError | undefined;
}

type JsonObject = Record<string, unknown>;

const maxPayloadBytes = 4096;
const maxTopicPayloadBytes = 2048;
const maxTtlSeconds = 2_419_200;
const decoder = new TextDecoder('utf-8', { fatal: true });

export function readFcmMessage(body: Buffer): FcmMessage {
  const result: FcmMessage = {
    registrationToken: '',
    notificationId: undefined,
    isValidateOnly: false,
    error: undefined,
  };
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(body));
  } catch {
    result.error = invalidPayload('', 'Invalid JSON payload received. Unexpected token.');
    return result;
  }
  if (!isObject(value)) {
    result.error = invalidPayload('', 'Invalid JSON payload received. Root element must be a message.');
    return result;
  }
  const problem: { error: FcmError | undefined } = { error: undefined };
  const request = canonical(value, sendRequestFields, '', problem);
  const message = isObject(request.message) ? request.message : {};
  result.isValidateOnly = request.validate_only === true;
  result.registrationToken = stringOr(message.token) ?? stringOr(message.fid) ?? '';
  result.notificationId = notificationIdOf(message);
  result.error = problem.error ?? checkMessage(message);
  return result;
}

/**
 * A copy with the definition's own field names. `problem` gets the first value that doesn't fit; the rest is still read, so that
 * the ledger knows the token of a refused message.
 */
function canonical(
  value: JsonObject,
  fields: MessageFields,
  path: string,
  problem: { error: FcmError | undefined },
): JsonObject {
  const copy: JsonObject = {};
  for (const name of Object.keys(value)) {
    const known = canonicalName(fields, name);
    if (known === undefined) {
      const where = path === '' ? '' : ` at '${path}'`;
      problem.error ??= invalidPayload(
        path,
        `Invalid JSON payload received. Unknown name "${name}"${where}: Cannot find field.`,
      );
      continue;
    }
    const child = path === '' ? known : `${path}.${known}`;
    const item = value[name];
    const type = fields[known]!;
    // In proto3 JSON null means absent.
    if (item === null) continue;
    if (typeof type === 'object' && !Array.isArray(type) && isObject(item)) {
      copy[known] = canonical(item, type as MessageFields, child, problem);
      continue;
    }
    const misfit = findMisfit(item, type, child);
    if (misfit === undefined) copy[known] = item;
    else problem.error ??= misfit;
  }
  return copy;
}

/** The error for a value that doesn't fit its type. */
function findMisfit(item: unknown, type: FieldType, path: string): FcmError | undefined {
  if (Array.isArray(type)) return type.includes(item as string) ? undefined : invalidValue(path, 'TYPE_ENUM', item);
  switch (type) {
    case 'string':
      return typeof item === 'string' ? undefined : invalidValue(path, 'TYPE_STRING', item);
    case 'boolean':
      return typeof item === 'boolean' ? undefined : invalidValue(path, 'TYPE_BOOL', item);
    case 'number':
      return typeof item === 'number' ? undefined : invalidValue(path, 'TYPE_INT32', item);
    case 'struct':
      return isObject(item) ? undefined : invalidValue(path, 'type.googleapis.com/google.protobuf.Struct', item);
    case 'duration':
      return isDuration(item) ? undefined : invalidValue(path, 'type.googleapis.com/google.protobuf.Duration', item);
    case 'timestamp': {
      const isInstant = typeof item === 'string' && !Number.isNaN(Date.parse(item));
      return isInstant ? undefined : invalidValue(path, 'type.googleapis.com/google.protobuf.Timestamp', item);
    }
    case 'strings':
    case 'durations': {
      if (!Array.isArray(item)) return invalidValue(path, 'TYPE_STRING', item);
      const element = type === 'strings' ? 'string' : 'duration';
      for (const [i, entry] of item.entries()) {
        const misfit = findMisfit(entry, element, `${path}[${i}]`);
        if (misfit !== undefined) return misfit;
      }
      return undefined;
    }
    case 'stringMap':
      if (!isObject(item)) return invalidValue(path, 'TYPE_MESSAGE', item);
      for (const [i, entry] of Object.values(item).entries()) {
        if (typeof entry !== 'string') return invalidValue(`${path}[${i}].value`, 'TYPE_STRING', entry);
      }
      return undefined;
    default:
      return invalidValue(path, 'TYPE_MESSAGE', item);
  }
}

function checkMessage(message: JsonObject): FcmError | undefined {
  const targets = ['token', 'fid', 'topic', 'condition'].filter((name) => message[name] !== undefined);
  if (targets.length === 0) {
    return invalidArgument('message', 'Recipient of the message is not set.');
  }
  if (targets.length > 1)
    return invalidPayload(
      'message',
      `Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set '${targets[1]}'`,
    );
  return (
    checkToken(message) ??
    checkData('message.data', message.data) ??
    checkData('message.android.data', part(message, 'android').data) ??
    checkData('message.webpush.data', part(message, 'webpush').data) ??
    checkTtl(part(message, 'android').ttl) ??
    checkApnsHeaders(part(part(message, 'apns'), 'headers')) ??
    checkApns(message) ??
    checkWebpush(part(message, 'webpush')) ??
    checkSize(message, targets[0] === 'topic' || targets[0] === 'condition' ? maxTopicPayloadBytes : maxPayloadBytes)
  );
}

function checkToken(message: JsonObject): FcmError | undefined {
  const registrationToken = message.token ?? message.fid;
  if (registrationToken === undefined) return undefined;
  if (/^[\w:-]{8,4096}$/.test(registrationToken as string)) return undefined;
  return invalidArgument('message.token', 'The registration token is not a valid FCM registration token');
}

function checkData(path: string, data: unknown): FcmError | undefined {
  if (!isObject(data)) return undefined;
  for (const key of Object.keys(data)) {
    if (key === 'from' || key === 'message_type' || key.startsWith('google.') || key.startsWith('gcm.notification.')) {
      return invalidArgument(path, `Invalid data payload key: ${key}`);
    }
  }
  return undefined;
}

function checkTtl(ttl: unknown): FcmError | undefined {
  if (ttl === undefined) return undefined;
  const seconds = Number.parseFloat(ttl as string);
  if (seconds >= 0 && seconds <= maxTtlSeconds) return undefined;
  return invalidArgument('message.android.ttl', 'TTL must be a duration between 0 and 2419200 seconds');
}

/** The values to which Apple answers BadCollapseId, BadPriority and BadExpirationDate; and a header carries only visible ASCII. */
function checkApnsHeaders(headers: JsonObject): FcmError | undefined {
  for (const [name, value] of Object.entries(headers)) {
    if (!/^[!-~](?:[ -~]*[!-~])?$/.test(String(value))) {
      return invalidArgument('message.apns.headers', `Invalid value of the APNs header ${name}`);
    }
  }
  const {
    'apns-collapse-id': collapseId,
    'apns-priority': priority,
    'apns-expiration': expiration,
  } = headers as Record<string, string | undefined>;
  if (collapseId !== undefined && collapseId.length > 64) {
    return invalidArgument('message.apns.headers', 'apns-collapse-id must not exceed 64 bytes');
  }
  if (priority !== undefined && !['1', '5', '10'].includes(priority)) {
    return invalidArgument('message.apns.headers', 'Invalid apns-priority');
  }
  if (expiration !== undefined && !/^\d{1,15}$/.test(expiration)) {
    return invalidArgument('message.apns.headers', 'Invalid apns-expiration');
  }
  return undefined;
}

function checkWebpush(webpush: JsonObject): FcmError | undefined {
  for (const [name, value] of Object.entries(part(webpush, 'headers'))) {
    if (name.toLowerCase() === 'ttl' && !/^\d{1,7}$/.test(String(value))) {
      return invalidArgument('message.webpush.headers', 'TTL must be a number of seconds');
    }
  }
  const { link } = part(webpush, 'fcm_options');
  if (link === undefined || String(link).startsWith('https://')) return undefined;
  return invalidArgument('message.webpush.fcm_options.link', 'The link must be an HTTPS URL');
}

/** A silent message to iOS must carry priority 5; only the payload tells here that the device runs iOS. */
function checkApns(message: JsonObject): FcmError | undefined {
  const apns = part(message, 'apns');
  const aps = part(part(apns, 'payload'), 'aps');
  const shows =
    message.notification !== undefined || aps.alert !== undefined || aps.badge !== undefined || aps.sound !== undefined;
  const isSilent = aps['content-available'] === 1 && !shows;
  const priority = part(apns, 'headers')['apns-priority'];
  if (!isSilent || priority === '5' || priority === '1') return undefined;
  return invalidArgument('message.apns.headers', 'A background message to APNs must have the priority 5');
}

/** Keys and values count. A platform's own data replaces the common data as a whole, its own notification field by field. */
function checkSize(message: JsonObject, limit: number): FcmError | undefined {
  for (const [name, title] of [
    ['android', 'Android'],
    ['webpush', 'WebPush'],
  ] as const) {
    const own = part(message, name);
    const notification = { ...part(message, 'notification'), ...part(own, 'notification') };
    if (textBytes(notification) + textBytes(own.data ?? message.data) > limit) {
      return invalidArgument('message', `${title} message is too big`);
    }
  }
  const payload = part(message, 'apns').payload;
  const payloadBytes = payload === undefined ? 0 : Buffer.byteLength(JSON.stringify(payload));
  if (payloadBytes > limit) return invalidArgument('message.apns.payload', 'APNs payload is too big');
  return undefined;
}

function textBytes(value: unknown): number {
  if (!isObject(value)) return 0;
  let bytes = 0;
  for (const [key, item] of Object.entries(value)) {
    bytes += Buffer.byteLength(key) + Buffer.byteLength(typeof item === 'string' ? item : JSON.stringify(item));
  }
  return bytes;
}

function notificationIdOf(message: JsonObject): string | undefined {
  return (
    stringOr(part(message, 'data').nid) ??
    stringOr(part(part(message, 'android'), 'data').nid) ??
    stringOr(part(part(message, 'apns'), 'payload').nid)
  );
}

function invalidValue(path: string, type: string, item: unknown): FcmError {
  const shown = typeof item === 'string' ? JSON.stringify(item) : String(isObject(item) ? '{}' : item);
  return invalidPayload(path, `Invalid value at '${path}' (${type}), ${shown}`);
}

function isDuration(item: unknown): boolean {
  return typeof item === 'string' && /^-?\d{1,12}(\.\d{1,9})?s$/.test(item);
}

function part(value: JsonObject, name: string): JsonObject {
  const item = value[name];
  return isObject(item) ? item : {};
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function stringOr(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
