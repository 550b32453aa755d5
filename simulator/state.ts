/** State that the fake providers and the control API share. */
import type { ProviderTokenVerifier } from './apns/provider-token.ts';
import { type Fields, flag, wholeNumber } from './checks.ts';
import type { SimulatorClock } from './clock.ts';
import type { TransportCounters } from './exchange.ts';
import type { FcmQuota } from './fcm/quota.ts';
import type { Ledger } from './ledger.ts';
import type { AccessTokens } from './oauth/access-tokens.ts';
import type { RequestLog } from './request-log.ts';
import type { Rules } from './rules.ts';

export interface SimulatorState {
  clock: SimulatorClock;
  random: () => number;
  ledger: Ledger;
  log: RequestLog;
  rules: Rules;
  counters: TransportCounters;
  settings: SimulatorSettings;
  /** Bundle ids of the team, without the suffixes of push types. */
  apnsTopics: Set<string>;
  providerTokens: ProviderTokenVerifier;
  /** Firebase projects that the service account may send for. */
  fcmProjects: Set<string>;
  accessTokens: AccessTokens;
  quota: FcmQuota;
}

/** Settings that can change while the simulator runs (`POST /settings`). */
export interface SimulatorSettings {
  /** A connection with token authentication starts with one stream and gets more after its first success. */
  apnsWarmUp: boolean;
  apnsMaxConcurrentStreams: number;
  fcmMaxConcurrentStreams: number;
  /** After ExpiredProviderToken the connection gives no other answer, as has been seen of APNs. */
  stickyExpiredProviderToken: boolean;
  /** MAX_CONCURRENT_STREAMS falls to 1 after a 400 and returns with the next 200, as has been seen of APNs. */
  throttlesAfterError: boolean;
  /** GOAWAY after this many BadDeviceToken on a connection; 0: never. */
  badDeviceTokenLimit: number;
  /** Each host takes this many requests a second, in order of arrival over all connections; the rest wait. 0: no limit. */
  answersPerSecond: number;
  /** The answers of this many milliseconds come together; 0: steadily. */
  answerBurstMs: number;
  /** PING is answered only after the requests before it. */
  queuesPings: boolean;
}

export const defaultSettings: SimulatorSettings = {
  apnsWarmUp: true,
  apnsMaxConcurrentStreams: 1000,
  fcmMaxConcurrentStreams: 100,
  stickyExpiredProviderToken: false,
  throttlesAfterError: false,
  badDeviceTokenLimit: 0,
  answersPerSecond: 0,
  answerBurstMs: 0,
  queuesPings: false,
};

export const simulatorSettingsFields: Fields<SimulatorSettings> = {
  apnsWarmUp: flag,
  apnsMaxConcurrentStreams: wholeNumber,
  fcmMaxConcurrentStreams: wholeNumber,
  stickyExpiredProviderToken: flag,
  throttlesAfterError: flag,
  badDeviceTokenLimit: wholeNumber,
  answersPerSecond: wholeNumber,
  answerBurstMs: wholeNumber,
  queuesPings: flag,
};
