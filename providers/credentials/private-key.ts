import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { CredentialError } from './credential-error.ts';

/**
 * Private keys in every shape in which people paste them: literal `\n`, quotes around, CRLF, all on one line, base64 of
 * the whole file, or the bare base64 without a PEM frame.
 */
export type KeyKind = 'ec' | 'rsa' | 'any';

/** Returns PKCS#8 PEM of a key of the wanted kind, proven by a test signature. @throws {CredentialError} */
export function normalisePrivateKey(input: string | Uint8Array, wanted: KeyKind, field = 'private_key'): string {
  const key = readPrivateKey(input, wanted, field);
  checkKind(key, wanted, field);
  prove(key, field);
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}

const wantedNames: Record<KeyKind, string> = {
  ec: "an APNs signing key (Apple's .p8 file)",
  rsa: 'the RSA key of a Google service account',
  any: 'the private key of the certificate',
};

function readPrivateKey(input: string | Uint8Array, wanted: KeyKind, field: string): KeyObject {
  const text = unwrap(asText(input, wanted, field));
  if (text === '') throw new CredentialError(field, `The key is empty; ${wantedNames[wanted]} is needed.`);
  if (text.startsWith('{')) throw refused(field, 'a JSON file (a Google service account?)', wanted);
  const frames = pemFrames(text);
  // A file may hold curve parameters or certificates beside its key.
  const framed = frames.find(({ label }) => label.endsWith('PRIVATE KEY')) ?? frames[0];
  if (framed !== undefined) return fromFrame(framed, wanted, field);

  const bytes = decodeBase64(text);
  if (bytes === undefined) throw refused(field, 'neither PEM nor base64', wanted);
  const inner = new TextDecoder().decode(bytes);
  if (inner.includes('-----BEGIN ') || inner.trimStart().startsWith('{')) return readPrivateKey(inner, wanted, field);
  return fromDer(bytes, wanted, field);
}

function fromFrame({ label, content }: PemFrame, wanted: KeyKind, field: string): KeyObject {
  switch (label) {
    case 'PRIVATE KEY':
    case 'EC PRIVATE KEY':
    case 'RSA PRIVATE KEY':
      break;
    case 'ENCRYPTED PRIVATE KEY':
      throw refused(field, 'a private key that is locked by a password', wanted);
    case 'EC PARAMETERS':
      throw refused(field, 'the parameters of a key', wanted);
    default:
      throw refused(field, label.includes('CERTIFICATE') ? 'a certificate' : `a ${label.toLowerCase()}`, wanted);
  }
  if (content.includes('ENCRYPTED')) throw refused(field, 'a private key that is locked by a password', wanted);
  const bytes = decodeBase64(content);
  if (bytes === undefined)
    throw new CredentialError(field, 'The key is damaged: its PEM frame holds something other than base64.');
  return fromDer(bytes, wanted, field);
}

function fromDer(der: Uint8Array, wanted: KeyKind, field: string): KeyObject {
  for (const type of ['pkcs8', 'sec1', 'pkcs1'] as const) {
    try {
      return createPrivateKey({ key: Buffer.from(der), format: 'der', type });
    } catch {
      // Not this form: the next is tried, and at last the error below.
    }
  }
  throw refused(field, describeDer(der), wanted);
}

function describeDer(der: Uint8Array): string {
  if (isPkcs12(der)) return 'a PKCS#12 file (.p12)';
  try {
    const key = createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' });
    return `a public key (${key.asymmetricKeyType})`;
  } catch {
    return 'damaged or no private key at all';
  }
}

/** PFX ::= SEQUENCE { version INTEGER 3, … } (RFC 7292 §4); no key form has version 3. */
export function isPkcs12(der: Uint8Array): boolean {
  if (der[0] !== 0x30 || der.length < 16) return false;
  const lengthBytes = der[1]! < 0x80 ? 0 : der[1]! & 0x7f;
  const at = 2 + lengthBytes;
  return der[at] === 0x02 && der[at + 1] === 0x01 && der[at + 2] === 0x03;
}

function checkKind(key: KeyObject, wanted: KeyKind, field: string): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (wanted === 'any') return;
  if (type !== wanted) {
    const name = type === 'rsa' ? `an RSA key of ${details?.modulusLength} bits` : `a key of type ${type}`;
    throw refused(field, type === 'ec' ? `an EC key on curve ${details?.namedCurve}` : name, wanted);
  }
  if (wanted === 'ec' && details?.namedCurve !== 'prime256v1') {
    throw refused(field, `an EC key on curve ${details?.namedCurve}, not P-256`, wanted);
  }
  if (wanted === 'rsa' && (details?.modulusLength ?? 0) < 2048) {
    throw refused(field, `an RSA key of only ${details?.modulusLength} bits`, wanted);
  }
}

/** A key that parses can still be broken inside; only a signature that verifies proves it. */
function prove(key: KeyObject, field: string): void {
  const text = Buffer.from('carillon');
  try {
    if (verify('sha256', text, createPublicKey(key), sign('sha256', text, key))) return;
  } catch {
    // Falls through: the reason could quote the key.
  }
  throw new CredentialError(field, 'The key is damaged: a test signature made with it does not verify.');
}

function refused(field: string, found: string, wanted: KeyKind): CredentialError {
  return new CredentialError(field, `This is ${found}; ${wantedNames[wanted]} is needed.`);
}

function asText(input: string | Uint8Array, wanted: KeyKind, field: string): string {
  if (typeof input === 'string') return input;
  if (isPkcs12(input)) throw refused(field, 'a PKCS#12 file (.p12)', wanted);
  // A DER file goes through base64, which is one of the accepted shapes.
  return input[0] === 0x30 && input[1]! >= 0x30
    ? Buffer.from(input).toString('base64')
    : new TextDecoder().decode(input);
}

export interface PemFrame {
  /** `CERTIFICATE`, `PRIVATE KEY`, … */
  label: string;
  content: string;
  /** With its first and last line. */
  text: string;
}

/** The last one may have lost its end. */
export function pemFrames(text: string): PemFrame[] {
  const found = text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----([\s\S]*?)(?:-----END [A-Z0-9 ]+-----|$)/g);
  return [...found].map(([text, label, content]) => ({ text, label: label!, content: content! }));
}

/** Removes what environment files, shells and YAML leave around a pasted text. */
export function unwrap(text: string): string {
  let bare = text.replace(/^\uFEFF/, '').trim();
  while (bare.length >= 2 && (bare[0] === '"' || bare[0] === "'" || bare[0] === '`') && bare.endsWith(bare[0])) {
    bare = bare.slice(1, -1).trim();
  }
  return bare.startsWith('{')
    ? bare
    : bare
        .replace(/(\\+r)?\\+n|\\+r/g, '\n')
        .replaceAll(/\r\n?/g, '\n')
        .trim();
}

/** Standard or URL-safe base64 with blanks anywhere; undefined for any other text. */
export function decodeBase64(text: string): Uint8Array | undefined {
  const compact = text.replace(/\s+/g, '').replace(/=+$/, '');
  if (compact === '' || !/^[A-Za-z0-9+/_-]+$/.test(compact)) return undefined;
  return Buffer.from(compact, 'base64');
}
