import type { Platform } from '../../domain/device.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../../domain/json.ts';
import { cleanText } from '../../domain/outside-text.ts';
import { isFromGateway, maxTextLength, type ProviderAnswer, reasonWord } from '../answer.ts';
import type { ApnsReason } from '../apns/reasons.ts';
import { apnsReasons } from '../apns/reasons.ts';
import type { ConfigurationFault, FaultScope, Suspicion, Verdict } from '../provider.ts';
import { maxRetryAfterMs } from '../retry-after.ts';

/**
 * Every answer of FCM and what it means for a send.
 * https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode and
 * https://firebase.google.com/docs/cloud-messaging/error-codes
 */
export const fcmErrorCodes = [
  'UNSPECIFIED_ERROR',
  'INVALID_ARGUMENT',
  'UNREGISTERED',
  'SENDER_ID_MISMATCH',
  'QUOTA_EXCEEDED',
  'UNAVAILABLE',
  'INTERNAL',
  'THIRD_PARTY_AUTH_ERROR',
  'APNS_AUTH_ERROR',
] as const;
export type FcmErrorCode = (typeof fcmErrorCodes)[number];

export type FcmReaction =
  | { kind: 'unregistered'; suspicion?: Suspicion; isOtherTopic?: true }
  | { kind: 'rejected'; isPayloadFault: boolean; isOnePlatform?: true }
  /** Refused: certainly not delivered. */
  | { kind: 'later'; scope: FaultScope; wait: keyof FcmWaits }
  /** Something broke on the way, and no answer says where: the message may have been delivered. */
  | { kind: 'unanswered'; scope: FaultScope }
  | { kind: 'misconfigured'; fault: ConfigurationFault; detail: string; isOnePlatform?: true }
  /** The key for Apple or for the web push service, stored in the Firebase project, was refused. */
  | { kind: 'thirdParty' }
  /** The access token is stale: one shared refresh, one more try. */
  | { kind: 'refresh' };

/** What to wait where FCM sends no Retry-After (https://firebase.google.com/docs/cloud-messaging/scale-fcm). */
export interface FcmWaits {
  /** After 429. Default 60 000 ms. */
  quotaMs: number;
  /** After 500 and 503: "at least 10 seconds before any retry". Default 10 000 ms. */
  serverErrorMs: number;
}

export const defaultFcmWaits: FcmWaits = { quotaMs: 60_000, serverErrorMs: 10_000 };

const unregistered: FcmReaction = { kind: 'unregistered' };
/** Healthy devices get this answer too, with the wrong project or with a payload whose fault FCM describes badly. */
const suspicious: FcmReaction = {
  kind: 'unregistered',
  suspicion: {
    fault: 'environment',
    check: 'check that the tokens belong to this Firebase project, and to the APNs environment that it sends to.',
  },
};
const otherProject: FcmReaction = {
  kind: 'unregistered',
  suspicion: {
    fault: 'project',
    check: 'check that the service account belongs to the Firebase project of the app.',
  },
};
const otherTopic: FcmReaction = {
  kind: 'unregistered',
  suspicion: { fault: 'topic', check: 'check the bundle id of the app in the Firebase project.' },
  isOtherTopic: true,
};
const badMessage: FcmReaction = { kind: 'rejected', isPayloadFault: true };
const badPart: FcmReaction = { kind: 'rejected', isPayloadFault: true, isOnePlatform: true };
/** Apple's refusals do not delay Android. */
const laterForDevice: FcmReaction = { kind: 'later', scope: 'device', wait: 'serverErrorMs' };
const laterForAll: FcmReaction = { kind: 'later', scope: 'provider', wait: 'serverErrorMs' };
const unansweredForAll: FcmReaction = { kind: 'unanswered', scope: 'provider' };
const misconfigured = (fault: ConfigurationFault, detail: string) => ({
  kind: 'misconfigured' as const,
  fault,
  detail,
});

const applePushKeyFault: FcmReaction = { kind: 'thirdParty' };
const appleTopicFault: FcmReaction = {
  ...misconfigured(
    'topic',
    'Apple refused the topic of the iOS app. Check the bundle id of the app in the Firebase project.',
  ),
  isOnePlatform: true,
};

/** `undefined`: the code says nothing by itself, look at the next detail. */
const fcmReactions = {
  UNSPECIFIED_ERROR: undefined,
  // Token or payload is at fault; Apple's reason, the field violations and the message decide (see `invalidArgument`).
  INVALID_ARGUMENT: undefined,
  UNREGISTERED: unregistered,
  SENDER_ID_MISMATCH: otherProject,
  // The details say whose quota it was (see `quotaExceeded`).
  QUOTA_EXCEEDED: undefined,
  // "The server couldn't process the request in time" (error-codes): it may have finished afterwards.
  UNAVAILABLE: unansweredForAll,
  // "The server encountered an error while trying to process the request" (error-codes), with no word on how far it had come.
  INTERNAL: unansweredForAll,
  THIRD_PARTY_AUTH_ERROR: applePushKeyFault,
  APNS_AUTH_ERROR: applePushKeyFault,
} as const satisfies Record<FcmErrorCode, FcmReaction | undefined>;

/** Apple's reason, passed on by FCM for iOS devices. Connection and provider token are FCM's there, not ours. */
const applesReactions = {
  BadCollapseId: badPart,
  BadDeviceToken: suspicious,
  BadExpirationDate: badPart,
  BadMessageId: badPart,
  BadPriority: badPart,
  BadTopic: appleTopicFault,
  DeviceTokenNotForTopic: otherTopic,
  DuplicateHeaders: badPart,
  IdleTimeout: laterForDevice,
  InvalidPushType: badPart,
  MissingDeviceToken: suspicious,
  MissingTopic: appleTopicFault,
  PayloadEmpty: badPart,
  TopicDisallowed: appleTopicFault,
  BadCertificate: applePushKeyFault,
  BadCertificateEnvironment: applePushKeyFault,
  ExpiredProviderToken: laterForDevice,
  Forbidden: applePushKeyFault,
  InvalidProviderToken: applePushKeyFault,
  MissingProviderToken: applePushKeyFault,
  UnrelatedKeyIdInToken: laterForDevice,
  BadEnvironmentKeyIdInToken: applePushKeyFault,
  BadEnvironmentKeyInToken: applePushKeyFault,
  BadPath: suspicious,
  MethodNotAllowed: badPart,
  ExpiredToken: unregistered,
  Unregistered: unregistered,
  PayloadTooLarge: badPart,
  TooManyProviderTokenUpdates: laterForDevice,
  TooManyRequests: { kind: 'later', scope: 'device', wait: 'quotaMs' },
  InternalServerError: { kind: 'unanswered', scope: 'device' },
  ServiceUnavailable: laterForDevice,
  Shutdown: laterForDevice,
} as const satisfies Record<ApnsReason, FcmReaction>;

const apiDisabled = misconfigured(
  'project',
  'The Firebase Cloud Messaging API is disabled in this Google Cloud project. Enable it, then wait a few minutes.',
);
const noPermission = misconfigured(
  'project',
  'The service account may not send for this project (cloudmessaging.messages.create). Check the project id and the role of the account.',
);
const projectQuota: FcmReaction = { kind: 'later', scope: 'account', wait: 'quotaMs' };

/** `google.rpc.ErrorInfo.reason` of the Google front end, which knows accounts and projects but no devices. */
const errorInfoReactions: Record<string, FcmReaction> = {
  IAM_PERMISSION_DENIED: noPermission,
  SERVICE_DISABLED: apiDisabled,
  CONSUMER_INVALID: misconfigured('project', 'Google does not know this project. Check the project id.'),
  BILLING_DISABLED: misconfigured('project', 'Billing of the Google Cloud project is disabled.'),
  ACCESS_TOKEN_SCOPE_INSUFFICIENT: misconfigured(
    'credentials',
    'The access token lacks the scope for Firebase messaging.',
  ),
  ACCESS_TOKEN_EXPIRED: { kind: 'refresh' },
  ACCESS_TOKEN_TYPE_UNSUPPORTED: { kind: 'refresh' },
  CREDENTIALS_MISSING: { kind: 'refresh' },
  ACCOUNT_STATE_INVALID: misconfigured('credentials', 'The service account is disabled or deleted.'),
  RATE_LIMIT_EXCEEDED: projectQuota,
};

/** `google.rpc` status, where no detail said more. Never a dead device: a wrong address or project gets these answers too. */
const statusReactions: Record<string, FcmReaction> = {
  INVALID_ARGUMENT: badMessage,
  FAILED_PRECONDITION: badMessage,
  OUT_OF_RANGE: badMessage,
  UNAUTHENTICATED: { kind: 'refresh' },
  PERMISSION_DENIED: misconfigured(
    'project',
    'Google denied the send without saying why. Check that the API is enabled, the project id, and the role of the service account.',
  ),
  NOT_FOUND: misconfigured('project', 'Nothing was found at the address of this project. Check the project id.'),
  RESOURCE_EXHAUSTED: projectQuota,
  // https://google.aip.dev/193 and google/rpc/code.proto: with ABORTED the request did not happen, the others leave it open.
  ABORTED: laterForAll,
  CANCELLED: unansweredForAll,
  INTERNAL: unansweredForAll,
  UNAVAILABLE: unansweredForAll,
};

export interface FcmReading {
  /** The most telling word of the answer, or `http_<status>`. */
  reason: string;
  reaction: FcmReaction;
  /** True when nothing in the tables matched: worth a line in the log. */
  isUnknown: boolean;
}

/**
 * Reads an answer in this order: FcmError, ApnsError, ErrorInfo, status, and only then HTTP's own number. Bare `NOT_FOUND`,
 * `PERMISSION_DENIED` and `UNAUTHENTICATED` are about us, not about the device.
 */
export function readFcmAnswer(answer: ProviderAnswer): FcmReading {
  const reading = readError(answer);
  return isFromGateway(answer) ? { ...reading, reaction: unansweredForAll } : reading;
}

function readError(answer: ProviderAnswer): FcmReading {
  const error = isJsonObject(answer.json?.error) ? answer.json.error : undefined;
  if (error === undefined) return byHttpStatus(answer);
  const details = Array.isArray(error.details) ? error.details.filter(isJsonObject) : [];
  const message = typeof error.message === 'string' ? error.message : '';

  const code = reasonWord(findDetail(details, 'FcmError')?.errorCode);
  const appleReason = reasonWord(findDetail(details, 'ApnsError')?.reason);
  const info = reasonWord(findDetail(details, 'ErrorInfo')?.reason);
  const status = reasonWord(error.status);

  if (code === 'INVALID_ARGUMENT') return known(...invalidArgument(details, message, appleReason));
  if (code === 'QUOTA_EXCEEDED') return known(code, quotaExceeded(details, message));
  const byCode = fcmReactions[code as FcmErrorCode] as FcmReaction | undefined;
  if (code !== undefined && Object.hasOwn(fcmReactions, code) && byCode !== undefined) return known(code, byCode);
  if (isApnsReason(appleReason)) return known(appleReason, applesReactions[appleReason]);
  if (info !== undefined && Object.hasOwn(errorInfoReactions, info)) return known(info, errorInfoReactions[info]!);
  if (status === 'INVALID_ARGUMENT') return known(...invalidArgument(details, message, undefined));
  if (status === 'PERMISSION_DENIED' && /has not been used in project|is disabled/.test(message)) {
    return known('SERVICE_DISABLED', apiDisabled);
  }
  if (status !== undefined && Object.hasOwn(statusReactions, status)) {
    // A code of FCM's that is not in the table is the best word for people to search for.
    return { reason: code ?? status, reaction: statusReactions[status]!, isUnknown: code !== undefined };
  }
  const reading = byHttpStatus(answer);
  return { ...reading, reason: code ?? status ?? reading.reason };
}

function known(reason: string, reaction: FcmReaction): FcmReading {
  return { reason, reaction, isUnknown: false };
}

function isApnsReason(reason: string | undefined): reason is ApnsReason {
  return reason !== undefined && (apnsReasons as readonly string[]).includes(reason);
}

/** FCM's sentence about a malformed token; in production nothing else tells it from a bad payload. */
const namesToken = /registration token/i;

function invalidArgument(
  details: JsonObject[],
  message: string,
  appleReason: string | undefined,
): [string, FcmReaction] {
  if (isApnsReason(appleReason)) return [appleReason, applesReactions[appleReason]];
  const fields = fieldViolations(details).map(({ field }) => field);
  const isAboutToken =
    fields.length > 0 ? fields.every((field) => field === 'message.token') : namesToken.test(message);
  // Suspicious, because FCM has been seen to answer so to a payload that it reads wrongly: the share of all devices decides.
  if (isAboutToken) return ['INVALID_ARGUMENT', suspicious];
  const isAboutOnePlatform =
    fields.length > 0 && fields.every((field) => /^message\.(apns|android|webpush)\b/.test(field));
  return ['INVALID_ARGUMENT', isAboutOnePlatform ? badPart : badMessage];
}

/** Only a quota that is plainly one device's lets the rest of the project go on. */
function quotaExceeded(details: JsonObject[], message: string): FcmReaction {
  const violations = findDetail(details, 'QuotaFailure')?.violations;
  const text = `${message} ${violations === undefined ? '' : JSON.stringify(violations)}`;
  return /\bdevice/i.test(text) ? { kind: 'later', scope: 'device', wait: 'quotaMs' } : projectQuota;
}

function byHttpStatus(answer: ProviderAnswer): FcmReading {
  return { reason: `http_${answer.httpStatus}`, reaction: reactionToStatus(answer.httpStatus), isUnknown: true };
}

function reactionToStatus(httpStatus: number): FcmReaction {
  // A gateway or front end, which cannot know what became of the request behind it.
  if (httpStatus >= 500) return unansweredForAll;
  switch (httpStatus) {
    case 400:
    case 413:
      return badMessage;
    case 401:
      return { kind: 'refresh' };
    case 403:
      return misconfigured(
        'project',
        'HTTP 403 without a reason. Check the project id, proxies and the role of the service account.',
      );
    // The whole request did not arrive in time (RFC 9110 §15.5.9).
    case 408:
      return laterForAll;
    case 429:
      return projectQuota;
    default:
      return misconfigured(
        'project',
        `HTTP ${httpStatus} without a reason: what answered is probably not FCM. Check the address and the project id.`,
      );
  }
}

/** The verdict of a reaction; undefined for `refresh`, which the client handles itself. */
export function fcmVerdict(
  answer: ProviderAnswer,
  { reason, reaction }: FcmReading,
  waits: FcmWaits,
  platform?: Platform,
): Verdict | undefined {
  const { httpStatus } = answer;
  switch (reaction.kind) {
    case 'unregistered':
      return { ...reaction, httpStatus, reason };
    case 'rejected': {
      const detail = describe(answer);
      const verdict = { ...reaction, httpStatus, reason };
      return detail === '' ? verdict : { ...verdict, detail };
    }
    case 'later': {
      const afterMs = askedMs(answer) ?? waits[reaction.wait];
      return { kind: 'later', httpStatus, reason, scope: reaction.scope, afterMs };
    }
    case 'unanswered': {
      const afterMs = askedMs(answer) ?? waits.serverErrorMs;
      return { kind: 'unanswered', httpStatus, reason, scope: reaction.scope, afterMs };
    }
    case 'thirdParty': {
      const detail = `${refusedKey[platform ?? 'unknown']} Check Project settings, Cloud Messaging, in the Firebase console.`;
      return { kind: 'misconfigured', httpStatus, reason, fault: 'credentials', detail, isOnePlatform: true };
    }
    case 'misconfigured':
      return { ...reaction, httpStatus, reason };
    case 'refresh':
      return undefined;
  }
}

const refusedKey: Record<Platform | 'unknown', string> = {
  ios: 'Apple refused the APNs key or certificate that is stored in the Firebase project.',
  web: 'The web push service refused the key pair that is stored in the Firebase project.',
  android:
    'A key that is stored in the Firebase project was refused, by Apple or the web push service, for devices registered as android: their tokens belong to another platform.',
  unknown: 'Apple or the web push service refused the key that is stored in the Firebase project.',
};

/** How long FCM asks to wait, in either of its two ways. */
function askedMs(answer: ProviderAnswer): number | undefined {
  return answer.retryAfterMs ?? retryInfoMs(answer);
}

/** FCM's message and the fields at fault, for the caller who has to correct the message. */
function describe(answer: ProviderAnswer): string {
  const error = isJsonObject(answer.json?.error) ? answer.json.error : undefined;
  if (error === undefined || typeof error.message !== 'string') return answer.text;
  const details = Array.isArray(error.details) ? error.details.filter(isJsonObject) : [];
  const fields = fieldViolations(details).map(({ field, description }) => `${field}: ${description}`);
  return cleanText(error.message + (fields.length === 0 ? '' : ` [${fields.join('; ')}]`), maxTextLength);
}

function findDetail(details: JsonObject[], type: string): JsonObject | undefined {
  return details.find((detail) => typeof detail['@type'] === 'string' && detail['@type'].endsWith(`.${type}`));
}

function fieldViolations(details: JsonObject[]): { field: string; description: string }[] {
  const violations: JsonValue | undefined = findDetail(details, 'BadRequest')?.fieldViolations;
  if (!Array.isArray(violations)) return [];
  return violations
    .filter(isJsonObject)
    .map(({ field, description }) => ({ field: String(field ?? ''), description: String(description ?? '') }));
}

/** `google.rpc.RetryInfo`: `"26s"`, `"1.5s"`. At most one hour, as Retry-After. */
function retryInfoMs(answer: ProviderAnswer): number | undefined {
  const error = isJsonObject(answer.json?.error) ? answer.json.error : undefined;
  const details = Array.isArray(error?.details) ? error.details.filter(isJsonObject) : [];
  const delay = findDetail(details, 'RetryInfo')?.retryDelay;
  if (typeof delay !== 'string' || !/^\d+(\.\d+)?s$/.test(delay)) return undefined;
  return Math.min(Math.ceil(Number(delay.slice(0, -1)) * 1000), maxRetryAfterMs);
}
