import { cutText } from './cut-text.ts';

/**
 * Text from outside, as PostgreSQL can store it, cut to `maxLength`: NUL and half a surrogate pair are legal in JSON, but not in
 * text.
 */
function storableText(text: string, maxLength: number): string {
  return cutText(text.replaceAll('\u0000', '\ufffd').toWellFormed(), maxLength);
}

/** A reason as it is stored with a device's outcome or deferral. */
export function storableReason(reason: string): string {
  return storableText(reason, 200);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: terminals should get no escapes.
const control = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Text from outside, also safe to print: without control characters, and without space around it. */
export function cleanText(text: string, maxLength: number): string {
  return storableText(text.replace(control, '').trim(), maxLength);
}
