import { isFromGateway, type ProviderAnswer, reasonWord } from '../answer.ts';
import type { ConfigurationFault, FaultScope, Suspicion, Verdict } from '../provider.ts';

/**
 * Every answer of APNs and what it means for a send.
 * https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
 */
export const apnsReasons = [
  'BadCollapseId',
  'BadDeviceToken',
  'BadExpirationDate',
  'BadMessageId',
  'BadPriority',
  'BadTopic',
  'DeviceTokenNotForTopic',
  'DuplicateHeaders',
  'IdleTimeout',
  'InvalidPushType',
  'MissingDeviceToken',
  'MissingTopic',
  'PayloadEmpty',
  'TopicDisallowed',
  'BadCertificate',
  'BadCertificateEnvironment',
  'ExpiredProviderToken',
  'Forbidden',
  'InvalidProviderToken',
  'MissingProviderToken',
  'UnrelatedKeyIdInToken',
  'BadEnvironmentKeyIdInToken',
  'BadEnvironmentKeyInToken',
  'BadPath',
  'MethodNotAllowed',
  'ExpiredToken',
  'Unregistered',
  'PayloadTooLarge',
  'TooManyProviderTokenUpdates',
  'TooManyRequests',
  'InternalServerError',
  'ServiceUnavailable',
  'Shutdown',
] as const;
export type ApnsReason = (typeof apnsReasons)[number];

/** What the client does with an answer, or what it tells the engine. */
export type ApnsReaction =
  /** The device token is dead. */
  | { kind: 'unregistered'; suspicion?: Suspicion; isOtherTopic?: true }
  /** This device can never take the message; `isPayloadFault`: nor can any other. */
  | { kind: 'rejected'; isPayloadFault: boolean }
  /** Apple refused the message and says why: certainly not delivered. */
  | {
      kind: 'later';
      scope: FaultScope;
      wait?: keyof ApnsWaits;
      retiresConnection?: true;
      keepsPreviousToken?: true;
    }
  /** Something broke on the way, and no answer says where: the message may have been delivered. */
  | { kind: 'unanswered' }
  | { kind: 'misconfigured'; fault: ConfigurationFault; detail: string; retiresConnection?: true }
  /** Refused because of the connection: the same request goes out on a new one. */
  | { kind: 'resend' }
  /** Refused because of the provider token: one new token, one more try on a new connection. */
  | { kind: 'refresh' };

/** Waits that Apple does not publish. Undefined: the retry policy decides. */
export interface ApnsWaits {
  /** After TooManyRequests, which is about one device. Default 60 000 ms. */
  tooManyRequestsMs: number;
  /** After TooManyProviderTokenUpdates. Default 60 000 ms. */
  tooManyTokenUpdatesMs: number;
  /** After Shutdown, jittered up to this. Default 5 000 ms. */
  shutdownMs: number;
}

export const defaultApnsWaits: ApnsWaits = {
  tooManyRequestsMs: 60_000,
  tooManyTokenUpdatesMs: 60_000,
  shutdownMs: 5_000,
};

const unregistered: ApnsReaction = { kind: 'unregistered' };
/** A token of the other environment or of another app gets this answer too, so a high share means that our settings are wrong. */
const suspicious: ApnsReaction = {
  kind: 'unregistered',
  suspicion: {
    fault: 'environment',
    check: 'check that the tokens belong to this APNs environment (production or sandbox).',
  },
};
/** The token seems alive for another app or push type. */
const otherTopic: ApnsReaction = {
  kind: 'unregistered',
  suspicion: { fault: 'topic', check: 'check APNS_TOPIC against the bundle id of the app.' },
  isOtherTopic: true,
};
const badMessage: ApnsReaction = { kind: 'rejected', isPayloadFault: true };
const badDevice: ApnsReaction = { kind: 'rejected', isPayloadFault: false };

const topicFault = (detail: string): ApnsReaction => ({ kind: 'misconfigured', fault: 'topic', detail });
const credentialFault = (detail: string): ApnsReaction => ({
  kind: 'misconfigured',
  fault: 'credentials',
  detail,
  retiresConnection: true,
});
const environmentFault = (detail: string): ApnsReaction => ({
  kind: 'misconfigured',
  fault: 'environment',
  detail,
  retiresConnection: true,
});

const keyOfOtherEnvironment = environmentFault(
  'APNs says that the key belongs to the other environment. Check whether the key is limited to sandbox or production.',
);

const apnsReactions = {
  BadCollapseId: badMessage,
  BadDeviceToken: suspicious,
  BadExpirationDate: badMessage,
  BadMessageId: badMessage,
  BadPriority: badMessage,
  BadTopic: topicFault('APNs refused the topic. Check that it is the bundle id of the app.'),
  DeviceTokenNotForTopic: otherTopic,
  DuplicateHeaders: badMessage,
  IdleTimeout: { kind: 'resend' },
  InvalidPushType: badMessage,
  MissingDeviceToken: badDevice,
  MissingTopic: topicFault('APNs wants a topic and got none. Set the bundle id of the app.'),
  PayloadEmpty: badMessage,
  TopicDisallowed: topicFault(
    'The key or certificate may not send to this topic. Check the bundle id and the topics it is allowed.',
  ),
  BadCertificate: credentialFault('APNs refused the certificate. It may be expired or revoked.'),
  BadCertificateEnvironment: environmentFault(
    'The certificate belongs to the other environment (sandbox or production).',
  ),
  ExpiredProviderToken: { kind: 'refresh' },
  Forbidden: credentialFault(
    'APNs forbids this action to the key or certificate. Check its rights in the developer account.',
  ),
  InvalidProviderToken: credentialFault(
    'APNs refused the provider token. Check key id and team id (they are easily swapped), and that the key is not revoked.',
  ),
  MissingProviderToken: credentialFault(
    'APNs got neither a provider token nor a certificate. Check the credential of the app.',
  ),
  UnrelatedKeyIdInToken: { kind: 'resend' },
  BadEnvironmentKeyIdInToken: keyOfOtherEnvironment,
  // Documented with "Id", seen without.
  BadEnvironmentKeyInToken: keyOfOtherEnvironment,
  BadPath: badDevice,
  MethodNotAllowed: badMessage,
  ExpiredToken: unregistered,
  Unregistered: unregistered,
  PayloadTooLarge: badMessage,
  // Provider tokens changed more than once in 20 minutes on this connection: a new one would make it worse.
  TooManyProviderTokenUpdates: {
    kind: 'later',
    scope: 'account',
    wait: 'tooManyTokenUpdatesMs',
    retiresConnection: true,
    keepsPreviousToken: true,
  },
  TooManyRequests: { kind: 'later', scope: 'device', wait: 'tooManyRequestsMs' },
  // RFC 9110 §15.6.1: "an unexpected condition that prevented it from fulfilling the request", with no word on how far the server
  // had come.
  InternalServerError: { kind: 'unanswered' },
  // Apple: "the service is unavailable", "the APNs server is shutting down". Neither has taken the request on (RFC 9110 §15.6.4).
  ServiceUnavailable: { kind: 'later', scope: 'provider' },
  Shutdown: { kind: 'later', scope: 'provider', wait: 'shutdownMs', retiresConnection: true },
} as const satisfies Record<ApnsReason, ApnsReaction>;

export interface ApnsReading {
  /** APNs' own word, or `http_<status>` when there was none. */
  reason: string;
  reaction: ApnsReaction;
  /** True when the reason is not in the table: worth a line in the log. */
  isUnknown: boolean;
}

/** Finds the reaction. Without a reason from APNs itself the status alone decides, and nothing is ever dropped. */
export function readApnsAnswer(answer: ProviderAnswer): ApnsReading {
  const reason = reasonWord(answer.json?.reason);
  if (reason !== undefined && Object.hasOwn(apnsReactions, reason) && !isFromGateway(answer)) {
    return { reason, reaction: apnsReactions[reason as ApnsReason], isUnknown: false };
  }
  return { reason: reason ?? `http_${answer.httpStatus}`, reaction: byStatus(answer, reason), isUnknown: true };
}

function byStatus(answer: ProviderAnswer, reason: string | undefined): ApnsReaction {
  const { httpStatus } = answer;
  // With a reason, APNs itself is unavailable. Without one, a gateway answered, which cannot know what became of the request
  // behind it.
  if (httpStatus === 503 && reason !== undefined) return { kind: 'later', scope: 'provider' };
  if (httpStatus >= 500) return { kind: 'unanswered' };
  // The whole request did not arrive in time (RFC 9110 §15.5.9).
  if (httpStatus === 408) return { kind: 'later', scope: 'provider' };
  if (httpStatus === 429) return { kind: 'later', scope: 'provider', wait: 'tooManyRequestsMs' };
  // A new reason of Apple's: this message failed, and if it fails for every device the engine stops.
  if (reason !== undefined && httpStatus >= 400) return badMessage;
  if (httpStatus === 400 || httpStatus === 413) return badMessage;
  if (httpStatus === 401 || httpStatus === 403) return credentialFault(`The answer was a bare HTTP ${httpStatus}.`);
  return environmentFault(
    `HTTP ${httpStatus} without a reason: what answered is probably not APNs. Check the address and proxies.`,
  );
}

/** The verdict of a reaction; undefined for `resend` and `refresh`, which the client handles itself. */
export function apnsVerdict(
  answer: ProviderAnswer,
  { reason, reaction }: ApnsReading,
  waits: ApnsWaits,
  random: () => number,
): Verdict | undefined {
  const { httpStatus } = answer;
  switch (reaction.kind) {
    case 'unregistered': {
      const invalidAt = instant(answer.json?.timestamp);
      const verdict = { ...reaction, httpStatus, reason };
      return invalidAt === undefined ? verdict : { ...verdict, invalidAt };
    }
    case 'rejected': {
      const verdict = { kind: 'rejected', httpStatus, reason, isPayloadFault: reaction.isPayloadFault } as const;
      return answer.text === '' ? verdict : { ...verdict, detail: answer.text };
    }
    case 'later': {
      const afterMs = answer.retryAfterMs ?? waitMs(reaction.wait, waits, random);
      const verdict = { kind: 'later', httpStatus, reason, scope: reaction.scope } as const;
      return afterMs === undefined ? verdict : { ...verdict, afterMs };
    }
    case 'unanswered': {
      const verdict = { kind: 'unanswered', httpStatus, reason, scope: 'provider' } as const;
      return answer.retryAfterMs === undefined ? verdict : { ...verdict, afterMs: answer.retryAfterMs };
    }
    case 'misconfigured':
      return { kind: 'misconfigured', httpStatus, reason, fault: reaction.fault, detail: reaction.detail };
    case 'resend':
    case 'refresh':
      return undefined;
  }
}

function waitMs(wait: keyof ApnsWaits | undefined, waits: ApnsWaits, random: () => number): number | undefined {
  if (wait === undefined) return undefined;
  return wait === 'shutdownMs' ? Math.round(waits.shutdownMs * (0.2 + 0.8 * random())) : waits[wait];
}

/** Milliseconds since 1970, as APNs gives them with 410. Any other value counts as none. */
function instant(value: unknown): Date | undefined {
  if (typeof value !== 'number' || !(value > 0)) return undefined;
  const at = new Date(value);
  return Number.isNaN(at.getTime()) ? undefined : at;
}
