import { createDecipheriv, createHash, createHmac, pbkdf2Sync, timingSafeEqual } from 'node:crypto';
import { BerTag, type BerValue, child, integer, objectId, octets, readBer } from './ber.ts';
import { CredentialError } from './credential-error.ts';
import { decryptRc2Cbc } from './rc2.ts';

/**
 * Reads a PKCS#12 file (RFC 7292) as macOS' Keychain and `openssl pkcs12` export it, including legacy RC2 and triple DES, which
 * Node refuses with "Unsupported PKCS12 PFX data".
 */
export interface Pkcs12Contents {
  /** PEM, one after the other. */
  certificates: string;
  /** PKCS#8 PEM. */
  privateKey: string;
}

/** Of all keys that are derived for a file from outside, which must not keep a server busy: about a second. */
const maxIterations = 2_000_000;
/** What an iteration of ours costs, in iterations of OpenSSL's PBKDF2. */
const ownIterationCost = 8;

const oid = {
  data: '1.2.840.113549.1.7.1',
  encryptedData: '1.2.840.113549.1.7.6',
  keyBag: '1.2.840.113549.1.12.10.1.1',
  shroudedKeyBag: '1.2.840.113549.1.12.10.1.2',
  certificateBag: '1.2.840.113549.1.12.10.1.3',
  nestedBag: '1.2.840.113549.1.12.10.1.6',
  pbes2: '1.2.840.113549.1.5.13',
};
/** `pbeWithSHAAnd…` (RFC 7292 appendix C). */
const legacyCiphers: Record<string, { keyBytes: number; cipher: 'des-ede3-cbc' | 'rc2' }> = {
  '1.2.840.113549.1.12.1.3': { keyBytes: 24, cipher: 'des-ede3-cbc' },
  '1.2.840.113549.1.12.1.4': { keyBytes: 16, cipher: 'des-ede3-cbc' },
  '1.2.840.113549.1.12.1.5': { keyBytes: 16, cipher: 'rc2' },
  '1.2.840.113549.1.12.1.6': { keyBytes: 5, cipher: 'rc2' },
};
const modernCiphers: Record<string, { keyBytes: number; cipher: string }> = {
  '2.16.840.1.101.3.4.1.2': { keyBytes: 16, cipher: 'aes-128-cbc' },
  '2.16.840.1.101.3.4.1.22': { keyBytes: 24, cipher: 'aes-192-cbc' },
  '2.16.840.1.101.3.4.1.42': { keyBytes: 32, cipher: 'aes-256-cbc' },
  '1.2.840.113549.3.7': { keyBytes: 24, cipher: 'des-ede3-cbc' },
};
const hmacHashes: Record<string, string> = {
  '1.2.840.113549.2.7': 'sha1',
  '1.2.840.113549.2.9': 'sha256',
  '1.2.840.113549.2.10': 'sha384',
  '1.2.840.113549.2.11': 'sha512',
};
const macHashes: Record<string, string> = {
  '1.3.14.3.2.26': 'sha1',
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
};
const hashBlockBytes: Record<string, number> = { sha1: 64, sha256: 64, sha384: 128, sha512: 128 };

/** @throws {CredentialError} when the password is wrong, the file is damaged, or it holds no certificate with a key. */
export function readPkcs12(file: Uint8Array, password: string): Pkcs12Contents {
  const found = { certificates: [] as Buffer[], keys: [] as Buffer[] };
  try {
    const pfx = readBer(Buffer.from(file));
    const safe = octets(child(child(child(pfx, 1), 1), 0));
    const lock = openLock(pfx, safe, password);
    for (const part of readBer(safe).children) collect(contentsOf(part, lock), lock, found);
  } catch (error) {
    if (error instanceof CredentialError) throw error;
    // Range errors of the reader and OpenSSL's own errors would tell a person no more than this.
    throw new CredentialError('certificate', 'The .p12 file is damaged, or its password is wrong.');
  }
  const [key] = found.keys;
  if (key === undefined)
    throw new CredentialError(
      'private_key',
      'The .p12 file holds no private key. Export certificate and key together.',
    );
  if (found.certificates.length === 0) throw new CredentialError('certificate', 'The .p12 file holds no certificate.');
  return {
    certificates: found.certificates.map((der) => pem('CERTIFICATE', der)).join(''),
    privateKey: pem('PRIVATE KEY', key),
  };
}

/** What all parts of a file are opened with. */
interface Lock {
  password: string;
  /** The password as PKCS#12 wants it. */
  secret: Buffer;
  iterationsLeft: number;
}

/** The password is proven by the file's MAC. An empty one is written in two ways; both are tried. */
function openLock(pfx: BerValue, safe: Buffer, password: string): Lock {
  const lock = { password, secret: bmpString(password), iterationsLeft: maxIterations };
  const mac = pfx.children[2];
  if (mac === undefined) return lock;
  const digestInfo = child(mac, 0);
  const hash = macHashes[objectId(child(child(digestInfo, 0), 0))];
  // A newer kind of MAC (RFC 9579): only the padding of the decrypted text can tell whether the password is right.
  if (hash === undefined) return lock;
  const salt = octets(child(mac, 1));
  const iterations = mac.children[2] === undefined ? 1 : integer(mac.children[2]);
  const expected = octets(child(digestInfo, 1));
  for (const secret of password === '' ? [lock.secret, Buffer.alloc(0)] : [lock.secret]) {
    lock.secret = secret;
    const key = deriveKey(hash, 3, lock, salt, iterations, expected.length);
    const actual = createHmac(hash, key).update(safe).digest();
    if (actual.length === expected.length && timingSafeEqual(actual, expected)) return lock;
  }
  throw new CredentialError('password', 'The password of the .p12 file is wrong.');
}

function contentsOf(part: BerValue, lock: Lock): BerValue {
  const type = objectId(child(part, 0));
  const content = child(child(part, 1), 0);
  if (type === oid.data) return readBer(octets(content));
  if (type !== oid.encryptedData) throw new RangeError('protected by something other than a password');
  const info = child(content, 1);
  return readBer(decrypt(child(info, 1), octets(child(info, 2)), lock));
}

function collect(bags: BerValue, lock: Lock, found: { certificates: Buffer[]; keys: Buffer[] }): void {
  for (const bag of bags.children) {
    const value = child(child(bag, 1), 0);
    switch (objectId(child(bag, 0))) {
      case oid.keyBag:
        found.keys.push(value.raw);
        break;
      case oid.shroudedKeyBag:
        found.keys.push(decrypt(child(value, 0), octets(child(value, 1)), lock));
        break;
      case oid.certificateBag:
        found.certificates.push(octets(child(child(value, 1), 0)));
        break;
      case oid.nestedBag:
        collect(value, lock, found);
        break;
    }
  }
}

function decrypt(algorithm: BerValue, encrypted: Buffer, lock: Lock): Buffer {
  const id = objectId(child(algorithm, 0));
  const parameters = child(algorithm, 1);
  if (id === oid.pbes2) return decryptModern(parameters, encrypted, lock);
  const legacy = legacyCiphers[id];
  if (legacy === undefined)
    throw new CredentialError('certificate', `The .p12 file is locked in a way that is not supported (${id}).`);
  const salt = octets(child(parameters, 0));
  const iterations = integer(child(parameters, 1));
  let key = deriveKey('sha1', 1, lock, salt, iterations, legacy.keyBytes);
  const iv = deriveKey('sha1', 2, lock, salt, iterations, 8);
  if (legacy.cipher === 'rc2') {
    const plain = decryptRc2Cbc(key, iv, encrypted);
    if (plain === undefined) throw new RangeError('wrong padding');
    return plain;
  }
  // Triple DES with two keys: the first one serves as the third.
  if (key.length === 16) key = Buffer.concat([key, key.subarray(0, 8)]);
  return decipher(legacy.cipher, key, iv, encrypted);
}

/** PBES2 with PBKDF2 (RFC 8018 §6.2). */
function decryptModern(parameters: BerValue, encrypted: Buffer, lock: Lock): Buffer {
  const [kdf, encryption] = [child(child(parameters, 0), 1), child(parameters, 1)];
  const scheme = modernCiphers[objectId(child(encryption, 0))];
  const prf = kdf.children.find(({ tag }) => tag === BerTag.sequence);
  const hash = prf === undefined ? 'sha1' : hmacHashes[objectId(child(prf, 0))];
  if (scheme === undefined || hash === undefined) {
    throw new CredentialError('certificate', 'The .p12 file is locked in a way that is not supported.');
  }
  const iterations = checkedIterations(integer(child(kdf, 1)), lock);
  const key = pbkdf2Sync(lock.password, octets(child(kdf, 0)), iterations, scheme.keyBytes, hash);
  return decipher(scheme.cipher, key, octets(child(encryption, 1)), encrypted);
}

function decipher(cipher: string, key: Buffer, iv: Buffer, encrypted: Buffer): Buffer {
  const decryption = createDecipheriv(cipher, key, iv);
  return Buffer.concat([decryption.update(encrypted), decryption.final()]);
}

function checkedIterations(iterations: number, lock: Lock): number {
  lock.iterationsLeft -= iterations;
  if (iterations < 1 || lock.iterationsLeft < 0) throw new RangeError('iterations beyond reason');
  return iterations;
}

/** RFC 7292 appendix B.2. `purpose`: 1 key, 2 initialisation vector, 3 MAC key. */
function deriveKey(
  hash: string,
  purpose: number,
  lock: Lock,
  salt: Buffer,
  iterations: number,
  length: number,
): Buffer {
  const blockBytes = hashBlockBytes[hash]!;
  const diversifier = Buffer.alloc(blockBytes, purpose);
  const input = Buffer.concat([repeated(salt, blockBytes), repeated(lock.secret, blockBytes)]);
  const derived: Buffer[] = [];
  for (let bytes = 0; bytes < length; ) {
    checkedIterations(iterations * ownIterationCost, lock);
    let digest = createHash(hash).update(diversifier).update(input).digest();
    for (let i = 1; i < iterations; i++) digest = createHash(hash).update(digest).digest();
    derived.push(digest);
    bytes += digest.length;
    addToBlocks(input, repeated(digest, blockBytes).subarray(0, blockBytes));
  }
  return Buffer.concat(derived).subarray(0, length);
}

/** Adds `addend` + 1 to each block, as big-endian numbers. */
function addToBlocks(blocks: Buffer, addend: Buffer): void {
  for (let at = 0; at < blocks.length; at += addend.length) {
    let carry = 1;
    for (let i = addend.length - 1; i >= 0; i--) {
      carry += blocks[at + i]! + addend[i]!;
      blocks[at + i] = carry & 255;
      carry >>= 8;
    }
  }
}

/** Repeated to fill whole blocks; empty stays empty. */
function repeated(bytes: Buffer, blockBytes: number): Buffer {
  return Buffer.alloc(Math.ceil(bytes.length / blockBytes) * blockBytes, bytes.length === 0 ? undefined : bytes);
}

/** UTF-16 big-endian with its closing zero. */
function bmpString(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'utf16le').swap16();
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
