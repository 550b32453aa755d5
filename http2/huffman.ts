/**
 * The Huffman code of HPACK (RFC 7541, Appendix B).
 *
 * The code is canonical: shorter codes come first and, within a length, symbols are in order. So the lengths below are
 * the whole table, and the codes themselves are counted out at start. Decoding walks the code tree four bits at a time
 * through one flat table, which is small enough to stay in the processor's cache.
 */

/** Code length in bits of each octet 0..255. The end-of-string symbol, 30 ones, follows them all. */
// biome-ignore format: sixteen octets a line, as the RFC's rows are read
const CODE_LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const EOS = 256;
const EOS_BITS = 30;

const LENGTHS = Uint8Array.from([...CODE_LENGTHS, EOS_BITS]);
const CODES = new Uint32Array(257);

// One entry per (tree node, next four bits): the node after them in the low bits, a symbol in bits 16..23 if one ended.
const EMITS = 1 << 30;
const FAILS = 1 << 29;
const NODE_MASK = 0xffff;
let STEPS = new Uint32Array(0);
/** 1 for a node at which a string may end: fewer than eight bits, all ones, since the last symbol (RFC 7541 §5.2). */
let MAY_END = new Uint8Array(0);

buildTables();

function buildTables(): void {
  const symbols = Array.from(LENGTHS.keys()).sort((a, b) => LENGTHS[a]! - LENGTHS[b]! || a - b);
  const children: [number, number][] = [[0, 0]];
  // Leaves are negative: -(symbol + 1). 0 means "no child yet", as the root is no node's child.
  let code = 0;
  let bits = 0;
  for (const symbol of symbols) {
    code <<= LENGTHS[symbol]! - bits;
    bits = LENGTHS[symbol]!;
    CODES[symbol] = code;
    let node = 0;
    for (let bit = bits - 1; bit >= 0; bit--) {
      const side = (code >>> bit) & 1;
      if (bit === 0) {
        children[node]![side] = -(symbol + 1);
      } else {
        if (children[node]![side] === 0) children[node]![side] = children.push([0, 0]) - 1;
        node = children[node]![side]!;
      }
    }
    code++;
  }

  STEPS = new Uint32Array(children.length * 16);
  for (let start = 0; start < children.length; start++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      let node = start;
      let step = 0;
      for (let bit = 3; bit >= 0; bit--) {
        node = children[node]![(nibble >>> bit) & 1]!;
        if (node >= 0) continue;
        const symbol = -node - 1;
        step |= symbol === EOS ? FAILS : EMITS | (symbol << 16);
        node = 0;
      }
      STEPS[start * 16 + nibble] = step | node;
    }
  }

  MAY_END = new Uint8Array(children.length);
  for (let node = 0, ones = 0; ones < 8; ones++) {
    MAY_END[node] = 1;
    node = children[node]![1]!;
  }
}

/** Bytes that `text` (one octet per character) takes in this code. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += LENGTHS[text.charCodeAt(i) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes `text` (one octet per character) at `offset` and returns the offset after it. The caller made the room. */
export function huffmanEncode(text: string, target: Uint8Array, offset: number): number {
  // 7 waiting bits and a code of 30 do not fit 32-bit arithmetic, so a code goes in by two halves.
  let waiting = 0;
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const octet = text.charCodeAt(i) & 0xff;
    const code = CODES[octet]!;
    let left = LENGTHS[octet]!;
    while (left > 0) {
      const taken = Math.min(left, 15);
      left -= taken;
      waiting = (waiting << taken) | ((code >>> left) & ((1 << taken) - 1));
      count += taken;
      while (count >= 8) {
        count -= 8;
        target[offset++] = waiting >>> count;
      }
      waiting &= (1 << count) - 1;
    }
  }
  if (count > 0) target[offset++] = (waiting << (8 - count)) | (0xff >>> count);
  return offset;
}

/**
 * Decodes `source[start, end)` into `target` from 0 on and returns how many octets came out, or -1 when the padding is
 * wrong or the end-of-string symbol appears. `target` needs `(end - start) * 8 / 5` octets, the shortest code having 5 bits.
 */
export function huffmanDecode(source: Uint8Array, start: number, end: number, target: Uint8Array): number {
  let node = 0;
  let length = 0;
  for (let i = start; i < end; i++) {
    const octet = source[i]!;
    const high = STEPS[(node << 4) | (octet >>> 4)]!;
    if (high >= FAILS) {
      if ((high & FAILS) !== 0) return -1;
      target[length++] = high >>> 16;
    }
    const low = STEPS[((high & NODE_MASK) << 4) | (octet & 15)]!;
    if (low >= FAILS) {
      if ((low & FAILS) !== 0) return -1;
      target[length++] = low >>> 16;
    }
    node = low & NODE_MASK;
  }
  return MAY_END[node] === 1 ? length : -1;
}
