import { type DeviceTokenResult, refused } from '../device-token.ts';

/** 32 bytes: no APNs token shorter than this was ever seen. */
const minHexDigits = 64;
const maxHexDigits = 1024;
/** What an import or a copy from a debugger leaves around or inside the hex digits. */
const decoration = /[\s<>]+/g;
const hexOnly = /^[0-9a-f]*$/;

/**
 * Hex of the token's bytes. Upper case, blanks, line ends and the `<abcd 1234>` of old iOS samples are the same token; Apple
 * promises no length (https://developer.apple.com/documentation/usernotifications/registering-your-app-with-apns), and
 * live-activity tokens of 160 characters and more are real.
 */
export function normaliseApnsToken(text: string): DeviceTokenResult {
  const digits = text.replace(decoration, '').toLowerCase();
  if (digits.length === 0) return refused('An APNs device token must not be empty.');
  if (!hexOnly.test(digits)) return refused('An APNs device token consists of hexadecimal digits only.');
  if (digits.length % 2 !== 0)
    return refused(`An APNs device token has an even number of digits, this one has ${digits.length}.`);
  if (digits.length < minHexDigits || digits.length > maxHexDigits) {
    return refused(
      `An APNs device token has ${minHexDigits} to ${maxHexDigits} hexadecimal digits, this one has ${digits.length}.`,
    );
  }
  return { ok: true, deviceToken: digits };
}
