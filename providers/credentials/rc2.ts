/**
 * RC2 in CBC mode, decryption only (RFC 2268). It is broken as a cipher, but macOS' Keychain and older tools still protect the
 * certificates of a .p12 file with it, and today's OpenSSL no longer reads it.
 */

/** RFC 2268 §2: a permutation of 0 to 255 from the digits of pi. */
const piTable = Buffer.from(
  'd978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2' +
    '179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82' +
    '54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb626' +
    '6fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7' +
    '08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ec' +
    'c2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731' +
    '2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a9' +
    '0d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad',
  'hex',
);
const blockBytes = 8;
const rotations = [1, 2, 3, 5];

/** The plain text without its padding; undefined when the padding is wrong, as with a wrong key. */
export function decryptRc2Cbc(key: Uint8Array, iv: Uint8Array, encrypted: Uint8Array): Buffer | undefined {
  if (encrypted.length === 0 || encrypted.length % blockBytes !== 0) return undefined;
  const expanded = expandKey(key, key.length * 8);
  const plain = Buffer.alloc(encrypted.length);
  let previous = iv;
  for (let at = 0; at < encrypted.length; at += blockBytes) {
    const block = encrypted.subarray(at, at + blockBytes);
    decryptBlock(expanded, block, plain, at);
    for (let i = 0; i < blockBytes; i++) plain[at + i]! ^= previous[i]!;
    previous = block;
  }
  const padding = plain[plain.length - 1]!;
  if (padding < 1 || padding > blockBytes) return undefined;
  if (!plain.subarray(-padding).every((byte) => byte === padding)) return undefined;
  return plain.subarray(0, -padding);
}

/** RFC 2268 §2. */
function expandKey(key: Uint8Array, effectiveBits: number): Uint16Array {
  const bytes = Buffer.alloc(128);
  bytes.set(key);
  for (let i = key.length; i < 128; i++) bytes[i] = piTable[(bytes[i - 1]! + bytes[i - key.length]!) & 255]!;
  const effectiveBytes = Math.ceil(effectiveBits / 8);
  const mask = 255 % 2 ** (8 + effectiveBits - 8 * effectiveBytes);
  bytes[128 - effectiveBytes] = piTable[bytes[128 - effectiveBytes]! & mask]!;
  for (let i = 127 - effectiveBytes; i >= 0; i--) bytes[i] = piTable[bytes[i + 1]! ^ bytes[i + effectiveBytes]!]!;
  return Uint16Array.from({ length: 64 }, (_, i) => bytes.readUInt16LE(i * 2));
}

/** RFC 2268 §4. */
function decryptBlock(key: Uint16Array, block: Uint8Array, target: Buffer, offset: number): void {
  const words = Uint16Array.from({ length: 4 }, (_, i) => block[i * 2]! | (block[i * 2 + 1]! << 8));
  let next = 63;
  const unmix = (rounds: number): void => {
    for (let round = 0; round < rounds; round++) {
      for (let i = 3; i >= 0; i--) {
        const [one, two, three] = [words[(i + 3) & 3]!, words[(i + 2) & 3]!, words[(i + 1) & 3]!];
        const turn = rotations[i]!;
        const word = (words[i]! >>> turn) | (words[i]! << (16 - turn));
        words[i] = word - key[next--]! - (one & two) - (~one & three);
      }
    }
  };
  const unmash = (): void => {
    for (let i = 3; i >= 0; i--) words[i]! -= key[words[(i + 3) & 3]! & 63]!;
  };
  unmix(5);
  unmash();
  unmix(6);
  unmash();
  unmix(5);
  words.forEach((word, i) => void target.writeUInt16LE(word, offset + i * 2));
}
