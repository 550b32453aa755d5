/**
 * Device tokens that say how the simulator must treat them, so that ten million devices need no table. A token made here is
 * unique per number, the same on every run, and looks like a real one; any other token behaves as `accept`, but an APNs token of
 * zeros, which no device has.
 *
 * APNs, 64 hex digits:   24 mixed · 12 number · 12 mixed · 8 mark · 2 behaviour · 1 environment · 5 parameter
 * FCM, 163 characters:   22 mixed · `:APA91b` · 115 filler · 8 number · 6 mark · 1 behaviour · 4 parameter
 */
import type { ApnsEnvironment, ProviderName } from '../domain/device.ts';
import { mix32 } from './random.ts';

/**
 * What the provider does with a device. "Once" is counted per (notification id, device token), so it happens again in every
 * notification. Add new names at the end: the position is part of the token.
 */
export const deviceBehaviours = [
  /** 200. */
  'accept',
  /** APNs 410 Unregistered, its timestamp `parameter` seconds ago (default now); FCM 404 UNREGISTERED. */
  'unregistered',
  /** APNs 400 BadDeviceToken; FCM 400 INVALID_ARGUMENT naming the registration token. */
  'badToken',
  /** The device belongs to another app: APNs 400 DeviceTokenNotForTopic; FCM 403 SENDER_ID_MISMATCH. */
  'wrongTopic',
  /** The same as `wrongTopic`, by FCM's name. */
  'senderMismatch',
  /** 429 for this device the first time (APNs TooManyRequests, FCM QUOTA_EXCEEDED), then 200. */
  'rateLimitedOnce',
  /** 503 the first time, then 200. */
  'unavailableOnce',
  /** 500 the first two times, then 200. */
  'internalErrorTwice',
  /** 503 for ever. */
  'alwaysUnavailable',
  /** 200 after `parameter` milliseconds (default 500). */
  'slow',
  /** Accepted, but no answer ever comes. */
  'hang',
  /** Accepted, then the connection is reset without an answer, every time. */
  'acceptThenClose',
  /** Accepted the first time, then RST_STREAM INTERNAL_ERROR instead of an answer; afterwards 200. */
  'acceptOnceUnanswered',
  /** RST_STREAM REFUSED_STREAM the first time (certainly not processed), then 200. */
  'refusedOnce',
  /** An HTML page with status 502 the first time, then 200. */
  'htmlError',
  /** APNs 410 ExpiredToken with a timestamp, as for `unregistered`; FCM as `unregistered`. */
  'expiredToken',
] as const;
export type DeviceBehaviour = (typeof deviceBehaviours)[number];

export interface DeviceTokenOptions {
  /** The one APNs environment the token is valid in; default both. */
  environment?: ApnsEnvironment;
  /** Meaning by behaviour, 0 to 1 048 575: milliseconds for `slow`, seconds for `unregistered`. */
  parameter?: number;
}

/** What a token made here says about itself. */
export interface MarkedDeviceToken {
  n: number;
  behaviour: DeviceBehaviour;
  environment: ApnsEnvironment | null;
  /** Undefined when none was given. */
  parameter: number | undefined;
}

const apnsMark = 'ca511107';
const apnsMarkAt = 48;
const environmentDigits: (ApnsEnvironment | null)[] = [null, 'production', 'sandbox'];
const noParameter = 0xfffff;
const maxNumber = 2 ** 48 - 1;

/** 64 lower-case hex digits. @throws {RangeError} when n is not an integer from 0 to 2^48 - 1. */
export function apnsDeviceToken(
  n: number,
  behaviour: DeviceBehaviour = 'accept',
  options?: DeviceTokenOptions,
): string {
  checkNumber(n);
  const environment = environmentDigits.indexOf(options?.environment ?? null);
  return (
    hex(mix32(n, 1), 8) +
    hex(mix32(n, 2), 8) +
    hex(mix32(n, 3), 8) +
    hex(n, 12) +
    hex(mix32(n, 4), 8) +
    hex(mix32(n, 5) & 0xffff, 4) +
    apnsMark +
    hex(behaviourCode(behaviour), 2) +
    environment.toString() +
    hex(parameterOf(options), 5)
  );
}

const ofNoDevice = '0'.repeat(64);

/** Reads a token of `apnsDeviceToken` in either case, or the one of zeros; undefined for any other. */
export function readApnsDeviceToken(deviceToken: string): MarkedDeviceToken | undefined {
  if (deviceToken.length !== 64) return undefined;
  if (deviceToken === ofNoDevice) return { n: 0, behaviour: 'badToken', environment: null, parameter: undefined };
  const token = deviceToken.toLowerCase();
  if (!token.startsWith(apnsMark, apnsMarkAt)) return undefined;
  const behaviour = deviceBehaviours[Number.parseInt(token.slice(56, 58), 16)];
  if (behaviour === undefined) return undefined;
  const parameter = Number.parseInt(token.slice(59), 16);
  return {
    n: Number.parseInt(token.slice(24, 36), 16),
    behaviour,
    environment: environmentDigits[Number.parseInt(token[58]!, 16)] ?? null,
    parameter: parameter === noParameter ? undefined : parameter,
  };
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const fcmMark = 'Cr1Ln_';
const fcmLength = 163;
const fcmMarkAt = fcmLength - 11;
const fcmNoParameter = 0xffffff;
const fillers = Array.from({ length: 64 }, (_, i) => mixedText(i + 1_000_000, 115));

/** 163 characters of [A-Za-z0-9_:-]. @throws {RangeError} when n is not an integer from 0 to 2^48 - 1. */
export function fcmRegistrationToken(
  n: number,
  behaviour: DeviceBehaviour = 'accept',
  options?: Pick<DeviceTokenOptions, 'parameter'>,
): string {
  checkNumber(n);
  const parameter = options?.parameter === undefined ? fcmNoParameter : parameterOf(options);
  return (
    mixedText(n, 22) +
    ':APA91b' +
    fillers[n % 64] +
    base64Number(n, 8) +
    fcmMark +
    alphabet[behaviourCode(behaviour)] +
    base64Number(parameter, 4)
  );
}

/** Reads a token of `fcmRegistrationToken`; undefined for any other. */
export function readFcmRegistrationToken(registrationToken: string): MarkedDeviceToken | undefined {
  if (registrationToken.length !== fcmLength || !registrationToken.startsWith(fcmMark, fcmMarkAt)) return undefined;
  const behaviour = deviceBehaviours[alphabet.indexOf(registrationToken[fcmMarkAt + 6]!)];
  if (behaviour === undefined) return undefined;
  const parameter = readBase64Number(registrationToken.slice(-4));
  return {
    n: readBase64Number(registrationToken.slice(fcmMarkAt - 8, fcmMarkAt)),
    behaviour,
    environment: null,
    parameter: parameter === fcmNoParameter ? undefined : parameter,
  };
}

/** Percentages (0 to 100) of an audience by behaviour; the rest is `accept`. */
export type BehaviourShares = Partial<Record<DeviceBehaviour, number>>;

/** The behaviour of device n in a mixed audience: the same for the same n, seed and shares. */
export function mixedAudience(n: number, seed: number, shares: BehaviourShares): DeviceBehaviour {
  let point = (mix32(n, seed) / 4_294_967_296) * 100;
  for (const behaviour of deviceBehaviours) {
    const share = shares[behaviour];
    if (share === undefined) continue;
    if (point < share) return behaviour;
    point -= share;
  }
  return 'accept';
}

function checkNumber(n: number): void {
  if (!Number.isInteger(n) || n < 0 || n > maxNumber) throw new RangeError(`device number out of range: ${n}`);
}

function behaviourCode(behaviour: DeviceBehaviour): number {
  const code = deviceBehaviours.indexOf(behaviour);
  if (code < 0) throw new RangeError(`unknown device behaviour: ${behaviour}`);
  return code;
}

function parameterOf(options: DeviceTokenOptions | undefined): number {
  const parameter = options?.parameter ?? noParameter;
  if (!Number.isInteger(parameter) || parameter < 0 || parameter > noParameter) {
    throw new RangeError(`device token parameter out of range: ${parameter}`);
  }
  return parameter;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

function base64Number(value: number, digits: number): string {
  let text = '';
  for (let i = 0, rest = value; i < digits; i++, rest = Math.floor(rest / 64)) text = alphabet[rest % 64]! + text;
  return text;
}

function readBase64Number(text: string): number {
  let value = 0;
  for (const character of text) value = value * 64 + alphabet.indexOf(character);
  return value;
}

function mixedText(n: number, length: number): string {
  let text = '';
  for (let i = 0; text.length < length; i++) {
    for (let bits = mix32(n, i + 11), k = 0; k < 5; k++, bits >>>= 6) text += alphabet[bits & 63];
  }
  return text.slice(0, length);
}

/** True for a token of `apnsDeviceToken` that is simply accepted in both environments: the usual case, told fast. */
export function isPlainApnsDeviceToken(deviceToken: string): boolean {
  return deviceToken.length === 64 && deviceToken.startsWith('ca511107000', apnsMarkAt);
}

/** The behaviour from the second request of a notification on, when faults of the first time are over. */
export function afterFirst(behaviour: DeviceBehaviour | undefined): DeviceBehaviour | undefined {
  switch (behaviour) {
    case 'rateLimitedOnce':
    case 'unavailableOnce':
    case 'acceptOnceUnanswered':
    case 'refusedOnce':
    case 'htmlError':
      return 'accept';
    default:
      return behaviour;
  }
}

/** Makes the token of device `n` for a provider. */
export const deviceTokens: Record<ProviderName, (n: number, behaviour?: DeviceBehaviour) => string> = {
  apns: apnsDeviceToken,
  fcm: fcmRegistrationToken,
};
