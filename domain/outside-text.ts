import { cutText } from './cut-text.ts';

/** Text from outside, as PostgreSQL can store it, cut to `maxLength`: NUL is legal JSON but no legal text, half a surrogate pair is neither. */
function storableText(text: string, maxLength: number): string {
  return cutText(text.replaceAll('\u0000', '\ufffd').toWellFormed(), maxLength);
}

/** A reason as it is kept with a device's outcome or deferral. */
export function storableReason(reason: string): string {
  return storableText(reason, 200);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: terminals should get no escapes.
const control = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Text from outside, made safe to print as well: without control characters, and without space around it. */
export function cleanText(text: string, maxLength: number): string {
  return storableText(text.replace(control, '').trim(), maxLength);
}
