/**
 * The part of a header block that many requests share, encoded once for each connection.
 *
 * Once the peer's dynamic table holds its fields, a template is a handful of index octets that stay valid until the
 * table changes, so a request costs one copy plus its own never-indexed literals.
 */
import { type HpackEncoder, type Indexing, maxFieldBytes } from './hpack.ts';

export interface TemplateField {
  readonly name: string;
  readonly value: string;
  /** Default `incremental`: the peer remembers the field. `without` for fields that change with nearly every template. */
  readonly indexing?: Indexing;
}

export interface HeaderTemplateOptions {
  /** Default POST. */
  readonly method?: string;
  /** Default https. */
  readonly scheme?: string;
  readonly authority: string;
  readonly fields: readonly TemplateField[];
  /** Names of fields whose values come with each request. */
  readonly ownNames?: readonly string[];
}

const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
// Visible ASCII with inner spaces: the providers need no more, and no character that could split a field gets through.
const VALUE = /^(?:[!-~](?:[ -~]*[!-~])?)?$/;
const FORBIDDEN = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);
const PATH_NEVER_INDEXED = 0x14; // literal, never indexed, name of static entry 4 (RFC 7541 §6.2.3)

export class HeaderTemplate {
  readonly fields: readonly TemplateField[];
  /** Literal, never indexed, new name: the octets that stand before each own value. */
  readonly ownPrefixes: readonly Buffer[];
  /** The most room that a block of this template takes, without path and own values. In octets. */
  readonly maxBytes: number;

  /** @throws {TypeError} for a field that HTTP/2 does not allow (RFC 9113 §8.2). */
  constructor(options: HeaderTemplateOptions) {
    this.fields = [
      { name: ':method', value: options.method ?? 'POST' },
      { name: ':scheme', value: options.scheme ?? 'https' },
      { name: ':authority', value: options.authority },
      ...options.fields,
    ];
    for (const { name, value } of options.fields) {
      checkName(name);
      if (!VALUE.test(value)) throw new TypeError(`header ${name} has a value that cannot be sent`);
    }
    if (!VALUE.test(options.authority)) throw new TypeError('authority cannot be sent');
    this.ownPrefixes = (options.ownNames ?? []).map((name) => {
      checkName(name);
      return Buffer.from([0x10, name.length, ...Buffer.from(name, 'latin1')]);
    });
    const fixed = this.fields.reduce((sum, { name, value }) => sum + maxFieldBytes(name, value), 0);
    // A size announcement, the path's and each own value's length, the own names.
    this.maxBytes = fixed + 20 + this.ownPrefixes.reduce((sum, prefix) => sum + prefix.length + 6, 0);
  }
}

function checkName(name: string): void {
  if (!NAME.test(name) || FORBIDDEN.has(name) || name.length > 100) {
    throw new TypeError(`header name ${JSON.stringify(name)} cannot be sent`);
  }
}

/** Writes header blocks from templates for one connection. */
export class TemplateEncoder {
  readonly #encoder: HpackEncoder;
  readonly #encoded = new WeakMap<HeaderTemplate, EncodedTemplate>();
  // Nearly every request has the template of the one before it.
  #lastTemplate: HeaderTemplate | undefined;
  #last: EncodedTemplate = { bytes: Buffer.alloc(0), revision: -1 };

  constructor(encoder: HpackEncoder) {
    this.#encoder = encoder;
  }

  /** Writes a whole block at `offset` and returns the offset after it. `roomFor` says how much room that needs. */
  write(
    target: Buffer,
    offset: number,
    template: HeaderTemplate,
    path: string,
    ownValues: readonly string[] | undefined,
  ): number {
    let at = this.#encoder.startBlock(target, offset);
    // The path goes first: it is the only pseudo-header field that is not in the template, and their order is free.
    target[at++] = PATH_NEVER_INDEXED;
    at = writeRaw(target, at, path);
    const bytes = this.#bytes(template);
    target.set(bytes, at);
    at += bytes.length;
    const prefixes = template.ownPrefixes;
    for (let i = 0; i < prefixes.length; i++) {
      const value = ownValues?.[i];
      if (value === undefined) continue;
      target.set(prefixes[i]!, at);
      at = writeRaw(target, at + prefixes[i]!.length, value);
    }
    return at;
  }

  #bytes(template: HeaderTemplate): Buffer {
    const revision = this.#encoder.revision;
    if (template !== this.#lastTemplate) {
      this.#lastTemplate = template;
      this.#last = this.#encoded.get(template) ?? this.#remember(template);
    }
    if (this.#last.revision === revision) return this.#last.bytes;
    const room = Buffer.allocUnsafe(template.maxBytes);
    let at = 0;
    for (const { name, value, indexing } of template.fields) {
      at = this.#encoder.field(room, at, name, value, indexing ?? 'incremental');
    }
    this.#last.bytes = room.subarray(0, at);
    // Octets that changed the table say "remember this" and may be sent once; the next block will be all indexes.
    this.#last.revision = this.#encoder.revision === revision ? revision : -1;
    return this.#last.bytes;
  }

  #remember(template: HeaderTemplate): EncodedTemplate {
    const encoded = { bytes: Buffer.alloc(0), revision: -1 };
    this.#encoded.set(template, encoded);
    return encoded;
  }
}

interface EncodedTemplate {
  bytes: Buffer;
  /** The encoder's revision at which `bytes` may be sent; -1: never again. */
  revision: number;
}

/** Octets to reserve before `TemplateEncoder.write`. */
export function roomFor(template: HeaderTemplate, path: string, ownValues: readonly string[] | undefined): number {
  let room = template.maxBytes + path.length;
  if (ownValues !== undefined) for (let i = 0; i < ownValues.length; i++) room += ownValues[i]!.length;
  return room;
}

/** A string literal without Huffman coding: it is written for every request, so speed goes before a few octets. */
function writeRaw(target: Buffer, offset: number, text: string): number {
  let at = offset;
  const length = text.length;
  if (length < 127) {
    target[at++] = length;
  } else {
    target[at++] = 127;
    let rest = length - 127;
    for (; rest >= 128; rest >>>= 7) target[at++] = (rest & 127) | 128;
    target[at++] = rest;
  }
  target.write(text, at, 'latin1');
  return at + length;
}
