import { createHash } from 'node:crypto';
import { utf8Bytes } from '../../domain/json.ts';
import { PayloadError } from './payload-error.ts';

/** https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns (`apns-collapse-id`). */
const maxCollapseIdBytes = 64;

/** The one rule for every field and override that can hold a collapse id. @throws {PayloadError} naming `field`. */
export function checkCollapseId(field: string, collapseId: unknown): asserts collapseId is string {
  if (typeof collapseId !== 'string') throw new PayloadError(field, 'A collapse id is a text.');
  const bytes = utf8Bytes(collapseId);
  if (bytes === 0 || bytes > maxCollapseIdBytes) {
    throw new PayloadError(
      field,
      `A collapse id has 1 to ${maxCollapseIdBytes} bytes of UTF-8, this one has ${bytes}.`,
    );
  }
  if (hasControlCharacter(collapseId) || collapseId.trim() !== collapseId) {
    throw new PayloadError(field, 'A collapse id must not contain control characters, nor blanks at its ends.');
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose.
const controlCharacter = /[\u0000-\u001f\u007f-\u009f]/;

export function hasControlCharacter(text: string): boolean {
  return controlCharacter.test(text);
}

const visibleAscii = /^[!-~](?:[ -~]*[!-~])?$/;

/**
 * A header carries visible ASCII (RFC 9110 §5.5); any other collapse id is replaced by its hash, which is the same for the same
 * text.
 */
export function collapseIdHeader(collapseId: string): string {
  return visibleAscii.test(collapseId) ? collapseId : createHash('sha256').update(collapseId).digest('base64url');
}
