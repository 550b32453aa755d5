import { utf8Bytes } from '../../domain/json.ts';
import { type DeviceTokenResult, refused } from '../device-token.ts';

/** A bit less than an entry of PostgreSQL's index of live tokens can hold (2 704 bytes); real tokens are far shorter. */
const maxTokenBytes = 2048;
/** Blanks, control characters, invisible format characters, lone surrogates: none of them is ever part of a registration token. */
const neverInToken = /[\s\p{C}]/u;
/** What programs write when they have no token: `(null)`, `<nil>`, `[object Object]`, `""`. Letters and digits only. */
const placeholders = new Set(['', 'null', 'nil', 'none', 'nan', 'undefined', 'objectobject', 'true', 'false']);
/** A Swift value printed without being unwrapped: `Optional("…")`. */
const printedOptional = /^optional\(.*\)$/i;

/** The token is opaque text, so only its ends are trimmed. */
export function normaliseFcmToken(text: string): DeviceTokenResult {
  const deviceToken = text.trim();
  if (deviceToken.length === 0) return refused('An FCM registration token must not be empty.');
  const bytes = utf8Bytes(deviceToken);
  if (bytes > maxTokenBytes) {
    return refused(`An FCM registration token has at most ${maxTokenBytes} bytes, this one has ${bytes}.`);
  }
  if (neverInToken.test(deviceToken)) {
    return refused('An FCM registration token must not contain blanks, line breaks or control characters.');
  }
  if (isPlaceholder(deviceToken)) {
    return refused('This is what a program writes where it has no token. Leave device_token out until there is one.');
  }
  return { ok: true, deviceToken };
}

function isPlaceholder(text: string): boolean {
  // Longer than every placeholder: a real token, so its characters need not be looked at.
  if (text.length > 40) return printedOptional.test(text);
  return placeholders.has(text.replace(/[^A-Za-z0-9]/g, '').toLowerCase()) || printedOptional.test(text);
}
