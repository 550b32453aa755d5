import type { ProviderName } from '../domain/device.ts';
import { utf8Bytes } from '../domain/json.ts';

/**
 * Device tokens as people register them, brought to the one form in which they are stored, compared and sent.
 *
 * APNs: hex of the token's bytes. Upper case, blanks, line ends and the `<abcd 1234>` of old iOS samples are the same
 * token; Apple promises no length (https://developer.apple.com/documentation/usernotifications/registering-your-app-with-apns),
 * and live-activity tokens of 160 characters and more are real. FCM: opaque text, so only its ends are trimmed.
 */
export type DeviceTokenResult = { ok: true; deviceToken: string } | { ok: false; message: string };

/** 32 bytes: no APNs token shorter than this was ever seen. */
export const minApnsTokenHexDigits = 64;
export const maxApnsTokenHexDigits = 1024;
/** A bit below what an entry of PostgreSQL's index of live tokens can hold (2 704 bytes); real tokens are far shorter. */
export const maxFcmTokenBytes = 2048;

/** What an import or a copy from a debugger leaves around or inside the hex digits. */
const apnsDecoration = /[\s<>]+/g;
const hexOnly = /^[0-9a-f]*$/;
/** Blanks, control characters, invisible format characters, lone surrogates: none of them is ever part of a registration token. */
const neverInFcmToken = /[\s\p{C}]/u;
/** What programs write where they have no token: `(null)`, `<nil>`, `[object Object]`, `""`. Letters and digits alone. */
const placeholders = new Set(['', 'null', 'nil', 'none', 'nan', 'undefined', 'objectobject', 'true', 'false']);
/** A Swift value printed without being unwrapped: `Optional("…")`. */
const printedOptional = /^optional\(.*\)$/i;

/** Returns the token as it must be stored, or a sentence for the caller. The token itself is never part of the message. */
export function normaliseDeviceToken(provider: ProviderName, text: string): DeviceTokenResult {
  return provider === 'apns' ? normaliseApnsToken(text) : normaliseFcmToken(text);
}

function normaliseApnsToken(text: string): DeviceTokenResult {
  const digits = text.replace(apnsDecoration, '').toLowerCase();
  if (digits.length === 0) return refused('An APNs device token must not be empty.');
  if (!hexOnly.test(digits)) return refused('An APNs device token consists of hexadecimal digits only.');
  if (digits.length % 2 !== 0)
    return refused(`An APNs device token has an even number of digits, this one has ${digits.length}.`);
  if (digits.length < minApnsTokenHexDigits || digits.length > maxApnsTokenHexDigits) {
    return refused(
      `An APNs device token has ${minApnsTokenHexDigits} to ${maxApnsTokenHexDigits} hexadecimal digits, this one has ${digits.length}.`,
    );
  }
  return { ok: true, deviceToken: digits };
}

function normaliseFcmToken(text: string): DeviceTokenResult {
  const deviceToken = text.trim();
  if (deviceToken.length === 0) return refused('An FCM registration token must not be empty.');
  const bytes = utf8Bytes(deviceToken);
  if (bytes > maxFcmTokenBytes) {
    return refused(`An FCM registration token has at most ${maxFcmTokenBytes} bytes, this one has ${bytes}.`);
  }
  if (neverInFcmToken.test(deviceToken)) {
    return refused('An FCM registration token must not contain blanks, line breaks or control characters.');
  }
  if (isPlaceholder(deviceToken)) {
    return refused('This is what a program writes where it has no token. Leave device_token out until there is one.');
  }
  return { ok: true, deviceToken };
}

function isPlaceholder(text: string): boolean {
  // Longer than all of them: a real token, without a look at each of its characters.
  if (text.length > 40) return printedOptional.test(text);
  return placeholders.has(text.replace(/[^A-Za-z0-9]/g, '').toLowerCase()) || printedOptional.test(text);
}

function refused(message: string): DeviceTokenResult {
  return { ok: false, message };
}
