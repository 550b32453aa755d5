/** Just enough of BER (X.690) to read a .p12 file, which may use indefinite lengths and strings in pieces. */
export interface BerValue {
  tag: number;
  /** Content octets; empty for a value with children. */
  content: Buffer;
  children: BerValue[];
  /** The whole value, header included. */
  raw: Buffer;
}

export const BerTag = { integer: 0x02, octetString: 0x04, objectId: 0x06, sequence: 0x30, context0: 0xa0 } as const;

const constructed = 0x20;
const maxDepth = 32;

/** @throws {RangeError} when the bytes are not BER. */
export function readBer(bytes: Buffer): BerValue {
  return readValue(bytes, 0, 0).value;
}

function readValue(bytes: Buffer, start: number, depth: number): { value: BerValue; end: number } {
  if (depth > maxDepth) throw new RangeError('nested too deep');
  const tag = byteAt(bytes, start);
  if ((tag & 0x1f) === 0x1f) throw new RangeError('long tags do not occur here');
  const { length, contentAt } = readLength(bytes, start + 1);
  if (length === undefined) return readIndefinite(bytes, start, contentAt, tag, depth);
  const end = contentAt + length;
  if (end > bytes.length) throw new RangeError('cut short');
  const children: BerValue[] = [];
  if (tag & constructed) {
    for (let at = contentAt; at < end; ) {
      const child = readValue(bytes.subarray(0, end), at, depth + 1);
      children.push(child.value);
      at = child.end;
    }
  }
  const content = tag & constructed ? bytes.subarray(0, 0) : bytes.subarray(contentAt, end);
  return { value: { tag, content, children, raw: bytes.subarray(start, end) }, end };
}

function readIndefinite(bytes: Buffer, start: number, contentAt: number, tag: number, depth: number) {
  const children: BerValue[] = [];
  let at = contentAt;
  while (!(byteAt(bytes, at) === 0 && byteAt(bytes, at + 1) === 0)) {
    const child = readValue(bytes, at, depth + 1);
    children.push(child.value);
    at = child.end;
  }
  const end = at + 2;
  return { value: { tag, content: bytes.subarray(0, 0), children, raw: bytes.subarray(start, end) }, end };
}

function readLength(bytes: Buffer, at: number): { length: number | undefined; contentAt: number } {
  const first = byteAt(bytes, at);
  if (first < 0x80) return { length: first, contentAt: at + 1 };
  if (first === 0x80) return { length: undefined, contentAt: at + 1 };
  const count = first & 0x7f;
  if (count > 4) throw new RangeError('a length beyond reason');
  let length = 0;
  for (let i = 1; i <= count; i++) length = length * 256 + byteAt(bytes, at + i);
  return { length, contentAt: at + 1 + count };
}

function byteAt(bytes: Buffer, at: number): number {
  const byte = bytes[at];
  if (byte === undefined) throw new RangeError('cut short');
  return byte;
}

/** The octets of a string, whether it is whole or in pieces. */
export function octets(value: BerValue): Buffer {
  return value.children.length === 0 ? value.content : Buffer.concat(value.children.map(octets));
}

/** Dotted form of an OBJECT IDENTIFIER. */
export function objectId({ tag, content }: BerValue): string {
  if (tag !== BerTag.objectId || content.length === 0) throw new RangeError('an object identifier is missing');
  const arcs = [Math.min(Math.floor(content[0]! / 40), 2)];
  arcs.push(content[0]! - arcs[0]! * 40);
  let arc = 0;
  for (const byte of content.subarray(1)) {
    arc = arc * 128 + (byte & 0x7f);
    if (byte < 0x80) {
      arcs.push(arc);
      arc = 0;
    }
  }
  return arcs.join('.');
}

/** A small non-negative INTEGER, such as an iteration count. */
export function integer({ tag, content }: BerValue): number {
  if (tag !== BerTag.integer || content.length === 0 || content.length > 5) throw new RangeError('a number is missing');
  return content.reduce((sum, byte) => sum * 256 + byte, 0);
}

/** The n-th child. @throws {RangeError} when there is none. */
export function child(value: BerValue, n: number): BerValue {
  const found = value.children[n];
  if (found === undefined) throw new RangeError('something is missing');
  return found;
}
