/**
 * HPACK, the header compression of HTTP/2 (RFC 7541): a decoder and an encoder with their dynamic tables.
 *
 * Nothing here knows which side of a connection it serves. Names and values are strings with one octet per character
 * (latin1), so no octet is lost and a length in characters is a length in octets.
 */
import { huffmanDecode, huffmanEncode, huffmanLength } from './huffman.ts';

/** Table size both sides start from, until SETTINGS_HEADER_TABLE_SIZE says otherwise (RFC 9113 §6.5.2). In octets. */
const DEFAULT_TABLE_BYTES = 4096;

/** What an entry costs beyond its octets, in tables and in header list sizes (RFC 7541 §4.1, RFC 9113 §6.5.2). */
const ENTRY_OVERHEAD_BYTES = 32;

/** The block cannot be decoded. The table is lost with it: the connection must end with COMPRESSION_ERROR. */
export class HpackError extends Error {
  readonly code = 'hpack_invalid';

  constructor(message: string) {
    super(message);
    this.name = 'HpackError';
  }
}

export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

/** RFC 7541, Appendix A. Index 1 is the first entry. */
// biome-ignore format: one index a line would be four screens
const STATIC_TABLE: readonly HeaderField[] = (
  [
    [':authority', ''], [':method', 'GET'], [':method', 'POST'], [':path', '/'], [':path', '/index.html'],
    [':scheme', 'http'], [':scheme', 'https'], [':status', '200'], [':status', '204'], [':status', '206'],
    [':status', '304'], [':status', '400'], [':status', '404'], [':status', '500'], ['accept-charset', ''],
    ['accept-encoding', 'gzip, deflate'], ['accept-language', ''], ['accept-ranges', ''], ['accept', ''],
    ['access-control-allow-origin', ''], ['age', ''], ['allow', ''], ['authorization', ''], ['cache-control', ''],
    ['content-disposition', ''], ['content-encoding', ''], ['content-language', ''], ['content-length', ''],
    ['content-location', ''], ['content-range', ''], ['content-type', ''], ['cookie', ''], ['date', ''], ['etag', ''],
    ['expect', ''], ['expires', ''], ['from', ''], ['host', ''], ['if-match', ''], ['if-modified-since', ''],
    ['if-none-match', ''], ['if-range', ''], ['if-unmodified-since', ''], ['last-modified', ''], ['link', ''],
    ['location', ''], ['max-forwards', ''], ['proxy-authenticate', ''], ['proxy-authorization', ''], ['range', ''],
    ['referer', ''], ['refresh', ''], ['retry-after', ''], ['server', ''], ['set-cookie', ''],
    ['strict-transport-security', ''], ['transfer-encoding', ''], ['user-agent', ''], ['vary', ''], ['via', ''],
    ['www-authenticate', ''],
  ] as const
).map(([name, value]) => ({ name, value }));

const STATIC_FIRST_BY_NAME = new Map<string, number>();
for (const [i, { name }] of STATIC_TABLE.entries()) {
  if (!STATIC_FIRST_BY_NAME.has(name)) STATIC_FIRST_BY_NAME.set(name, i + 1);
}

/** The entries one side has asked the other to remember, newest first (RFC 7541 §2.3.2). */
class DynamicTable {
  maxBytes: number;
  bytes = 0;
  count = 0;
  /** A ring whose length is a power of two; entry number n (counted from the first ever) is at n modulo the length. */
  #ring: (HeaderField | undefined)[] = new Array(16).fill(undefined);
  #inserted = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** The entry with this age, 0 being the newest; undefined when there is none. */
  at(age: number): HeaderField | undefined {
    return age < this.count ? this.#ring[(this.#inserted - 1 - age) & (this.#ring.length - 1)] : undefined;
  }

  insert(field: HeaderField): void {
    const size = field.name.length + field.value.length + ENTRY_OVERHEAD_BYTES;
    this.#evictDownTo(this.maxBytes - size);
    // An entry larger than the table empties it and is not kept: no error (RFC 7541 §4.4).
    if (size > this.maxBytes) return;
    if (this.count === this.#ring.length) this.#grow();
    this.#ring[this.#inserted & (this.#ring.length - 1)] = field;
    this.#inserted++;
    this.count++;
    this.bytes += size;
  }

  resize(maxBytes: number): void {
    this.maxBytes = maxBytes;
    this.#evictDownTo(maxBytes);
  }

  #evictDownTo(bytes: number): void {
    while (this.count > 0 && this.bytes > bytes) {
      const slot = (this.#inserted - this.count) & (this.#ring.length - 1);
      const oldest = this.#ring[slot]!;
      this.#ring[slot] = undefined;
      this.count--;
      this.bytes -= oldest.name.length + oldest.value.length + ENTRY_OVERHEAD_BYTES;
    }
  }

  #grow(): void {
    const oldestFirst = Array.from({ length: this.count }, (_, i) => this.at(this.count - 1 - i));
    this.#ring = new Array(this.#ring.length * 2).fill(undefined);
    for (const [i, field] of oldestFirst.entries()) this.#ring[i] = field;
    this.#inserted = this.count;
  }
}

/** Takes the fields of a block in their order. */
export interface HeaderSink {
  header(name: string, value: string): void;
}

export interface HpackDecoderOptions {
  /** SETTINGS_HEADER_TABLE_SIZE that we announced, in octets. Default 4096. */
  maxTableBytes?: number;
  /** Largest header list handed on, counted as RFC 9113 §6.5.2 does, in octets. Default 16 KiB. */
  maxHeaderListBytes?: number;
}

/** The reading half of one connection. Memory is bounded by the two limits and by the length of the block given. */
export class HpackDecoder {
  readonly #table: DynamicTable;
  readonly #maxHeaderListBytes: number;
  #maxTableBytes: number;
  #mustShrink = false;
  #scratch = Buffer.allocUnsafeSlow(256);
  /** Where the next octet is read; a field, because reading an integer or a string must also move it. */
  #at = 0;

  constructor(options: HpackDecoderOptions = {}) {
    this.#maxTableBytes = options.maxTableBytes ?? DEFAULT_TABLE_BYTES;
    this.#maxHeaderListBytes = options.maxHeaderListBytes ?? 16 * 1024;
    this.#table = new DynamicTable(this.#maxTableBytes);
  }

  /** To be called when the peer has acknowledged a SETTINGS_HEADER_TABLE_SIZE. In octets. */
  setMaxTableSize(bytes: number): void {
    this.#maxTableBytes = bytes;
    // After a lowered limit the peer owes us a size update before anything else (RFC 7541 §4.2).
    this.#mustShrink = this.#table.maxBytes > bytes;
  }

  /**
   * Decodes one whole header block, `block[start, end)`, into `sink`.
   *
   * Returns false when the list is over the limit: the fields that fit have been handed on, the rest was decoded for the
   * table's sake only, so the connection stays usable (RFC 9113 §10.5.1).
   * @throws {HpackError} when the block is malformed; the decoder is of no use afterwards.
   */
  decode(block: Buffer, start: number, end: number, sink: HeaderSink): boolean {
    this.#at = start;
    let listBytes = 0;
    let fits = true;
    let mayResize = true;
    while (this.#at < end) {
      const first = block[this.#at]!;
      if ((first & 0xe0) === 0x20) {
        // Size updates stand only at the beginning of a block (RFC 7541 §4.2).
        if (!mayResize) throw new HpackError('table size update after a field');
        this.#resize(this.#integer(block, end, 5));
        continue;
      }
      if (this.#mustShrink) throw new HpackError('missing table size update');
      mayResize = false;
      const field = (first & 0x80) !== 0 ? this.#field(this.#integer(block, end, 7)) : this.#literal(block, end, first);
      listBytes += field.name.length + field.value.length + ENTRY_OVERHEAD_BYTES;
      if (listBytes > this.#maxHeaderListBytes) fits = false;
      if (fits) sink.header(field.name, field.value);
    }
    return fits;
  }

  #resize(bytes: number): void {
    if (bytes > this.#maxTableBytes) throw new HpackError('table size update above the limit');
    this.#mustShrink = false;
    this.#table.resize(bytes);
  }

  #field(index: number): HeaderField {
    const field = index <= STATIC_TABLE.length ? STATIC_TABLE[index - 1] : this.#table.at(index - 62);
    if (field === undefined) throw new HpackError(`no field at index ${index}`);
    return field;
  }

  #literal(block: Buffer, end: number, first: number): HeaderField {
    const isIndexed = (first & 0x40) !== 0;
    const index = this.#integer(block, end, isIndexed ? 6 : 4);
    const name = index === 0 ? this.#string(block, end) : this.#field(index).name;
    const field = { name, value: this.#string(block, end) };
    if (isIndexed) this.#table.insert(field);
    return field;
  }

  /** RFC 7541 §5.1. Four octets of continuation reach 2^28, more than any length or index that could be meant. */
  #integer(block: Buffer, end: number, prefixBits: number): number {
    if (this.#at >= end) throw new HpackError('block ends before an integer');
    const mask = (1 << prefixBits) - 1;
    let value = block[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; shift < 28; shift += 7) {
      if (this.#at >= end) throw new HpackError('block ends inside an integer');
      const octet = block[this.#at++]!;
      value += (octet & 0x7f) << shift;
      if (octet < 0x80) return value;
    }
    throw new HpackError('integer too large');
  }

  #string(block: Buffer, end: number): string {
    const isHuffman = this.#at < end && block[this.#at]! >= 0x80;
    const length = this.#integer(block, end, 7);
    const start = this.#at;
    if (length > end - start) throw new HpackError('block ends inside a string');
    this.#at = start + length;
    if (!isHuffman) return block.toString('latin1', start, this.#at);
    if (length * 8 > this.#scratch.length * 5) this.#scratch = Buffer.allocUnsafeSlow(length * 2);
    const decoded = huffmanDecode(block, start, this.#at, this.#scratch);
    if (decoded < 0) throw new HpackError('invalid Huffman code');
    return this.#scratch.toString('latin1', 0, decoded);
  }
}

/**
 * How a literal is written: remembered by the peer, not remembered by it, or remembered neither by the peer nor by a proxy on the
 * way (RFC 7541 §6.2). A field that one of the tables already holds goes out as an index, except a `never` one.
 */
export type Indexing = 'incremental' | 'without' | 'never';

export interface HpackEncoderOptions {
  /** Table size to use at most, in octets, whatever the peer allows. Default 4096. */
  maxTableBytes?: number;
  /** Huffman-code a string unless that makes it longer. Default true. */
  huffman?: boolean;
}

/** The writing half of one connection. It writes into buffers in which the caller has made room (`maxFieldBytes`). */
export class HpackEncoder {
  readonly #table: DynamicTable;
  readonly #ownMaxBytes: number;
  readonly #huffman: boolean;
  /** Smallest and last table size since the last block, not yet told to the peer; -1: nothing to tell. */
  #smallestResize = -1;
  #lastResize = -1;
  #revision = 0;

  constructor(options: HpackEncoderOptions = {}) {
    this.#ownMaxBytes = options.maxTableBytes ?? DEFAULT_TABLE_BYTES;
    this.#huffman = options.huffman ?? true;
    // The peer assumes 4096 until told otherwise, so a smaller table must be announced before use.
    this.#table = new DynamicTable(DEFAULT_TABLE_BYTES);
    if (this.#ownMaxBytes < DEFAULT_TABLE_BYTES) this.setMaxTableSize(DEFAULT_TABLE_BYTES);
  }

  /** Changes with every change of the table: octets encoded at one revision may be sent again while it lasts. */
  get revision(): number {
    return this.#revision;
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE, in octets. The next block will announce what we make of it. */
  setMaxTableSize(bytes: number): void {
    const size = Math.min(bytes, this.#ownMaxBytes);
    if (size === this.#table.maxBytes && this.#lastResize === -1) return;
    this.#smallestResize = this.#lastResize === -1 ? size : Math.min(this.#smallestResize, size);
    this.#lastResize = size;
    this.#table.resize(size);
    this.#revision++;
  }

  /** Begins a header block: announces changes of the table size (RFC 7541 §4.2), at most 10 octets. */
  startBlock(target: Buffer, offset: number): number {
    if (this.#lastResize === -1) return offset;
    let at = offset;
    if (this.#smallestResize < this.#lastResize) at = writeInteger(target, at, 0x20, 5, this.#smallestResize);
    at = writeInteger(target, at, 0x20, 5, this.#lastResize);
    this.#smallestResize = -1;
    this.#lastResize = -1;
    return at;
  }

  /** Writes one field and returns the offset after it. */
  field(target: Buffer, offset: number, name: string, value: string, indexing: Indexing): number {
    const nameIndex = this.#find(name, value);
    if (nameIndex < 0 && indexing !== 'never') return writeInteger(target, offset, 0x80, 7, -nameIndex);
    // A field too large for the table would only empty it (RFC 7541 §4.4).
    const isKept =
      indexing === 'incremental' && name.length + value.length + ENTRY_OVERHEAD_BYTES <= this.#table.maxBytes;
    const [flags, prefixBits] = isKept || indexing !== 'incremental' ? LITERAL_FORMS[indexing] : LITERAL_FORMS.without;
    let at = writeInteger(target, offset, flags, prefixBits, Math.abs(nameIndex));
    if (nameIndex === 0) at = writeString(target, at, name, this.#huffman);
    at = writeString(target, at, value, this.#huffman);
    if (isKept) {
      this.#table.insert({ name, value });
      this.#revision++;
    }
    return at;
  }

  /** The index of the field, negated; else the index of a field of that name; else 0. */
  #find(name: string, value: string): number {
    const first = STATIC_FIRST_BY_NAME.get(name) ?? 0;
    for (let i = first; i > 0 && STATIC_TABLE[i - 1]?.name === name; i++) {
      if (STATIC_TABLE[i - 1]!.value === value) return -i;
    }
    let nameIndex = first;
    for (let age = 0; age < this.#table.count; age++) {
      const entry = this.#table.at(age)!;
      if (entry.name !== name) continue;
      if (entry.value === value) return -(62 + age);
      if (nameIndex === 0) nameIndex = 62 + age;
    }
    return nameIndex;
  }
}

const LITERAL_FORMS: Record<Indexing, readonly [flags: number, prefixBits: number]> = {
  incremental: [0x40, 6],
  without: [0x00, 4],
  never: [0x10, 4],
};

/** Room that one field takes at most, in octets. */
export function maxFieldBytes(name: string, value: string): number {
  return 1 + 3 * 5 + name.length + value.length;
}

/** RFC 7541 §5.1: `flags` are the bits of the first octet above the prefix. Returns the offset after the integer. */
export function writeInteger(target: Buffer, offset: number, flags: number, prefixBits: number, value: number): number {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    target[offset] = flags | value;
    return offset + 1;
  }
  let at = offset;
  target[at++] = flags | mask;
  let rest = value - mask;
  while (rest >= 0x80) {
    target[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  target[at++] = rest;
  return at;
}

/** RFC 7541 §5.2. With `huffman` the Huffman form is used unless it is the longer one. Returns the offset after the string. */
export function writeString(target: Buffer, offset: number, text: string, huffman: boolean): number {
  if (huffman) {
    const length = huffmanLength(text);
    if (length <= text.length) return huffmanEncode(text, target, writeInteger(target, offset, 0x80, 7, length));
  }
  const at = writeInteger(target, offset, 0, 7, text.length);
  target.write(text, at, 'latin1');
  return at + text.length;
}
