import type { ApnsEnvironment, Platform, ProviderName } from '../domain/device.ts';
import type { NotificationContent } from './payload/content.ts';

export type { NotificationContent } from './payload/content.ts';
export { PayloadError } from './payload/payload-error.ts';

/**
 * All that the delivery engine knows of a push provider.
 *
 * A provider owns its connections and its credential, and reads every answer. It renews a stale credential and resends, a bounded
 * number of times, requests that were provably not processed, so the engine sees only verdicts that it must record or act on.
 */
export interface PushProvider {
  readonly name: ProviderName;
  /** A name for the credential in use, not the credential itself. */
  readonly credential: string;
  /** All that `hostOf` can answer. */
  readonly hosts: readonly string[];

  /** The host that takes the device's messages. One host that cannot be reached says nothing about another. */
  hostOf(device: Pick<DeviceAddress, 'apnsEnvironment'>): string;

  /**
   * Builds and measures, once per batch, all that does not depend on the device.
   * @param nowMs milliseconds since 1970 by the clock that made `expiresAt`; default: this machine's. The time left is worked out
   *   when a request is written; a request that would be written after `expiresAt` is `unsent`.
   * @throws {PayloadError} when the message can never be taken by this provider.
   */
  prepare(content: NotificationContent, nowMs?: () => number): PreparedMessage;

  /**
   * How many messages for a host the provider can usefully be given at once. Follows the host's pace; more would only wait here.
   */
  usefulRequests(host: string): number;

  /**
   * Hands one message to the provider. Always resolves, exactly once: within the request's deadline once it is written, as unsent
   * when it cannot be written for long.
   */
  send(prepared: PreparedMessage, device: DeviceAddress): Promise<Verdict>;

  /**
   * A request that any provider must refuse for its device token alone, and that shows nothing anywhere: what it says instead is
   * about credential, topic or project.
   */
  probe(): Promise<Verdict>;

  /** Refuses new sends, lets those in flight end (bounded), closes every connection. A repeat is harmless. */
  close(): Promise<void>;
}

export interface DeviceAddress {
  /** The device's row id; part of the apns-id, so that a repeat carries the id of the first copy. */
  deviceId: number;
  /** Normalised: lower-case hex for APNs, trimmed for FCM. */
  deviceToken: string;
  /** APNs only; null means production. */
  apnsEnvironment: ApnsEnvironment | null;
  /**
   * The platform that the device was registered as; undefined: not known. FCM reaches all platforms, each with its own part of
   * the message.
   */
  platform?: Platform;
}

/** Opaque to the engine; each provider narrows it to its own type. */
export interface PreparedMessage {
  /** What answers depend on besides host, credential and device: APNs topic, Firebase project. */
  readonly target: string;
}

/** How one call of `send` ended. `reason` is the provider's own word where it gave one. */
export type Verdict =
  | AcceptedVerdict
  | UnregisteredVerdict
  | RejectedVerdict
  | LaterVerdict
  | UnsentVerdict
  | UnansweredVerdict
  | MisconfiguredVerdict;

/** The provider took the message. It says nothing about the phone's screen. */
export interface AcceptedVerdict {
  kind: 'accepted';
  httpStatus: number;
  /** FCM's message id; undefined for APNs, whose apns-id follows from notification and device (`providers/apns/apns-id.ts`). */
  providerMessageId?: string;
}

/** The device token is dead. */
export interface UnregisteredVerdict {
  kind: 'unregistered';
  httpStatus: number;
  reason: string;
  /** When the provider last knew the token to be invalid: a later registration of the same token stays alive. */
  invalidAt?: Date;
  /**
   * Present when a wrong environment, topic or project gives the same answer for healthy devices (`BadDeviceToken`,
   * `DeviceTokenNotForTopic`, `SENDER_ID_MISMATCH`, …): what a high share of such answers means.
   */
  suspicion?: Suspicion;
  /** True when the token may be alive for another topic or push type of the app: never a reason to retire the device. */
  isOtherTopic?: boolean;
}

/** This message can never be taken for this device. */
export interface RejectedVerdict {
  kind: 'rejected';
  /** Null: known before any request, so there was no attempt. */
  httpStatus: number | null;
  reason: string;
  detail?: string;
  /** True when the fault lies in the message itself, so that every device would refuse it. */
  isPayloadFault: boolean;
  /** True when the fault lies in the part of the message for this platform alone. */
  isOnePlatform?: boolean;
}

/** Refused for now; certainly not delivered. Counts as an attempt. */
export interface LaterVerdict {
  kind: 'later';
  httpStatus: number;
  reason: string;
  /** From Retry-After or the provider's published rule; undefined: the retry policy decides. */
  afterMs?: number;
  scope: FaultScope;
}

/**
 * Whom an answer is about.
 * - `device`: only this device waits.
 * - `provider`: most likely the provider's server; once such answers are many, the whole app waits too. For a device that gets
 *   them while others are taken, it is the device's own trouble.
 * - `account`: our key or our quota: as `provider`, but never the device's trouble.
 */
export type FaultScope = 'device' | 'provider' | 'account';

/** Provably never processed, and resending at once did not work either (no connection). No attempt is counted. */
export interface UnsentVerdict {
  kind: 'unsent';
  reason: string;
  afterMs: number;
}

/** May or may not have been delivered: time-out, reset, stream closed without an answer, or an answer that says "something broke". */
export interface UnansweredVerdict {
  kind: 'unanswered';
  /** Null: there was no answer at all. */
  httpStatus: number | null;
  reason: string;
  /** From Retry-After or the provider's published rule, where there was an answer; undefined: the retry policy decides. */
  afterMs?: number;
  /** Where there was an answer. */
  scope?: FaultScope;
}

/**
 * Credential, topic, project or clock is wrong: every send of this app, or of one platform of it, would end the same. Nothing is
 * recorded for the device.
 */
export interface MisconfiguredVerdict {
  kind: 'misconfigured';
  httpStatus: number | null;
  reason: string;
  fault: ConfigurationFault;
  /** One sentence for the operator on call: what was refused and what to check. */
  detail: string;
  /** True when devices of other platforms are not affected: FCM passes messages on to Apple with a key of its own. */
  isOnePlatform?: boolean;
}

export type ConfigurationFault = 'credentials' | 'clock' | 'topic' | 'project' | 'environment';

export interface Suspicion {
  fault: ConfigurationFault;
  /** For the person on call. */
  check: string;
}
