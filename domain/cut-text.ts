import { utf8Bytes } from './json.ts';

/**
 * Our own limits cut text from outside between characters as a reader sees them (grapheme clusters of Unicode UAX 29): never
 * within a surrogate pair, an emoji of several code points, or a letter and its accent.
 */
const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' });
/** In code units. A longer character is cut between its code points; otherwise a single "character" could be the whole text. */
const longestCharacter = 64;

/** The longest beginning of whole characters that has at most `length` UTF-16 code units (as `String.length` counts). */
export function cutText(text: string, length: number): string {
  if (text.length <= length) return text;
  if (length <= 0) return '';
  // The text ends where the character begins that holds the first code unit too many.
  const end = graphemes.segment(text.slice(0, length + longestCharacter)).containing(length)!.index;
  if (length - end <= longestCharacter) return text.slice(0, end);
  return text.slice(0, isHighSurrogate(text.charCodeAt(length - 1)) ? length - 1 : length);
}

function isHighSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdbff;
}

/** As `cutText`, but in bytes of UTF-8, which others' limits count. */
export function cutTextToBytes(text: string, maxBytes: number): string {
  let cut = cutText(text, maxBytes);
  for (let excess = utf8Bytes(cut) - maxBytes; excess > 0; excess = utf8Bytes(cut) - maxBytes) {
    // A code unit has three bytes at most.
    cut = cutText(cut, cut.length - Math.ceil(excess / 3));
  }
  return cut;
}

/** `cutText` with an ellipsis in place of the missing text, together at most `length`. */
export function shortenText(text: string, length: number): string {
  return text.length <= length ? text : `${cutText(text, length - 1)}…`;
}
