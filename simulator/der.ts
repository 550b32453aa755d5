/** The part of DER (ITU-T X.690) that a certificate needs: every function returns one complete tag-length-value. */

export function derSequence(...parts: Buffer[]): Buffer {
  return tagged(0x30, Buffer.concat(parts));
}

export function derSet(...parts: Buffer[]): Buffer {
  return tagged(0x31, Buffer.concat(parts));
}

/** An unsigned integer, big-endian. */
export function derInteger(magnitude: Buffer | number): Buffer {
  const bytes = typeof magnitude === 'number' ? Buffer.from([magnitude]) : magnitude;
  return tagged(0x02, bytes[0]! >= 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes);
}

/** An object identifier written with dots. */
export function derObjectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return tagged(0x06, Buffer.from(bytes));
}

export function derUtf8(text: string): Buffer {
  return tagged(0x0c, Buffer.from(text, 'utf8'));
}

export function derBoolean(value: boolean): Buffer {
  return tagged(0x01, Buffer.from([value ? 0xff : 0]));
}

export function derNull(): Buffer {
  return tagged(0x05, Buffer.alloc(0));
}

export function derOctetString(content: Buffer): Buffer {
  return tagged(0x04, content);
}

export function derBitString(content: Buffer, unusedBits = 0): Buffer {
  return tagged(0x03, Buffer.concat([Buffer.from([unusedBits]), content]));
}

/** UTCTime up to 2049, GeneralizedTime after it, as RFC 5280 §4.1.2.5 asks. */
export function derTime(at: Date): Buffer {
  const digits = at.toISOString().replace(/[-:T]|\.\d+/g, '');
  return at.getUTCFullYear() < 2050 ? tagged(0x17, Buffer.from(digits.slice(2))) : tagged(0x18, Buffer.from(digits));
}

/** Context-specific [n]: constructed when it wraps other values, primitive when it replaces a tag (as in a SAN). */
export function derContext(n: number, content: Buffer, constructed = true): Buffer {
  return tagged((constructed ? 0xa0 : 0x80) | n, content);
}

function tagged(tag: number, content: Buffer): Buffer {
  const length: number[] = [];
  if (content.length < 0x80) length.push(content.length);
  else {
    for (let left = content.length; left > 0; left >>>= 8) length.unshift(left & 0xff);
    length.unshift(0x80 | length.length);
  }
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}
