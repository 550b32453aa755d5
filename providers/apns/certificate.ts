import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { ApnsEnvironment } from '../../domain/device.ts';
import { CredentialError } from '../credentials/credential-error.ts';
import { readPkcs12 } from '../credentials/pkcs12.ts';
import {
  decodeBase64,
  isPkcs12,
  normalisePrivateKey,
  type PemFrame,
  pemFrames,
  unwrap,
} from '../credentials/private-key.ts';

/** An APNs client certificate with its key, ready to use. */
export interface ApnsCertificate {
  kind: 'certificate';
  /** The certificate first, then its issuers, where the file had them. */
  certificatePem: string;
  /** PKCS#8 PEM. */
  privateKeyPem: string;
}

/** What the certificate says about itself. */
export interface ApnsCertificateFacts {
  /** From the subject's UID; undefined when there is none. */
  apnsTopic: string | undefined;
  /** Empty when the certificate names none. */
  environments: ApnsEnvironment[];
  expiresAt: Date;
}

/** Apple's extensions: development and production (https://images.apple.com/certificateauthority/pdf/Apple_WWDR_CPS_v1.22.pdf). */
const environmentOids: Record<ApnsEnvironment, string> = {
  sandbox: '2a864886f76364060301',
  production: '2a864886f76364060302',
};

export interface ApnsCertificateInput {
  /** PEM or DER, a .p12 file, or the base64 of one of them. May hold the key too. */
  certificate: string | Uint8Array;
  /** PEM; where the certificate's file does not hold it. */
  privateKey?: string | undefined;
  /** The password of the .p12 file or of the key. */
  password?: string | undefined;
}

/** Checks that certificate and key belong together and that the certificate is valid now. @throws {CredentialError} */
export function normaliseApnsCertificate(
  { certificate, privateKey, password }: ApnsCertificateInput,
  now: Date,
): ApnsCertificate & ApnsCertificateFacts {
  const file = readFile(certificate, password);
  const key = privateKey === undefined ? file.privateKey : readKey(unwrap(privateKey), password);
  if (key === undefined) {
    throw new CredentialError('private_key', 'The file of the certificate holds no private key, and none is given.');
  }
  const keyObject = createPrivateKey(key);
  const own = file.certificates.find((one) => one.checkPrivateKey(keyObject));
  if (own === undefined) throw new CredentialError('private_key', 'The key does not belong to the certificate.');
  checkValidity(own, now);
  return {
    kind: 'certificate',
    certificatePem: [own, ...file.certificates.filter((one) => one !== own)].map(String).join(''),
    privateKeyPem: key,
    // Node writes it in capitals, Deno does not.
    apnsTopic: /^uid=(.+)$/im.exec(own.subject)?.[1],
    environments: environmentsOf(own),
    expiresAt: new Date(own.validTo),
  };
}

/** As `openssl x509 -fingerprint -sha256` shows it, without colons and in small letters. */
export function fingerprintOfCertificate({ certificatePem }: ApnsCertificate): string {
  return new X509Certificate(certificatePem).fingerprint256.replaceAll(':', '').toLowerCase();
}

interface CertificateFile {
  certificates: X509Certificate[];
  /** PKCS#8 PEM. */
  privateKey: string | undefined;
}

/** PEM, DER or PKCS#12, as it is or as base64, and all that happens to a text that is pasted. */
function readFile(input: string | Uint8Array, password: string | undefined): CertificateFile {
  if (typeof input !== 'string') {
    // A PEM file begins with a dash or with words.
    return input[0] === derSequence ? fromDer(input, password) : readFile(new TextDecoder().decode(input), password);
  }
  const text = unwrap(input);
  if (text.startsWith('{')) throw refused('a JSON file (a Google service account?)');
  const frames = pemFrames(text);
  if (frames.length > 0) return fromFrames(frames, password);
  const bytes = decodeBase64(text);
  if (bytes === undefined) throw refused(text === '' ? 'an empty text' : 'neither PEM nor base64');
  return readFile(bytes, password);
}

const derSequence = 0x30;

function fromDer(der: Uint8Array, password: string | undefined): CertificateFile {
  if (!isPkcs12(der)) return { certificates: [parseCertificate(der)], privateKey: undefined };
  const { certificates, privateKey } = readPkcs12(der, password ?? '');
  return fromFrames(pemFrames(certificates + privateKey), undefined);
}

function fromFrames(frames: PemFrame[], password: string | undefined): CertificateFile {
  const certificates = frames.filter(({ label }) => label === 'CERTIFICATE');
  const key = frames.find(({ label }) => label.endsWith('PRIVATE KEY'));
  if (certificates.length === 0) {
    throw refused(key === undefined ? `a ${frames[0]!.label.toLowerCase()}` : 'a private key without its certificate');
  }
  return {
    certificates: certificates.map(({ content }) => parseCertificate(decodeBase64(content) ?? new Uint8Array())),
    privateKey: key && readKey(key.text, password),
  };
}

function parseCertificate(der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch {
    throw new CredentialError('certificate', 'The certificate is damaged, or no certificate at all.');
  }
}

function refused(found: string): CredentialError {
  return new CredentialError('certificate', `This is ${found}; an APNs certificate (PEM or .p12) is needed.`);
}

function readKey(text: string, password: string | undefined): string {
  if (!text.includes('ENCRYPTED')) return normalisePrivateKey(text, 'any');
  if (!password) {
    throw new CredentialError('password', 'The private key is locked by a password, and none is given.');
  }
  const frame = pemFrames(text).find(({ label }) => label === 'ENCRYPTED PRIVATE KEY');
  const der = frame && decodeBase64(frame.content);
  try {
    const locked = der ? ({ key: Buffer.from(der), format: 'der', type: 'pkcs8' } as const) : { key: text };
    return normalisePrivateKey(exportedKey(createPrivateKey({ ...locked, passphrase: password })), 'any');
  } catch {
    // What the crypto library says may quote the key.
    throw new CredentialError('password', 'The private key does not open: it is damaged, or its password is wrong.');
  }
}

function exportedKey(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}

function checkValidity(certificate: X509Certificate, now: Date): void {
  const validFrom = new Date(certificate.validFrom);
  const validTo = new Date(certificate.validTo);
  if (now > validTo)
    throw new CredentialError('certificate', `The certificate expired on ${validTo.toISOString().slice(0, 10)}.`);
  if (now < validFrom) {
    throw new CredentialError(
      'certificate',
      `The certificate is valid from ${validFrom.toISOString().slice(0, 10)} only.`,
    );
  }
}

/** Node gives no list of extensions. The bytes of an OID, with tag and length, do not occur by chance, so they are searched for. */
function environmentsOf(certificate: X509Certificate): ApnsEnvironment[] {
  const hex = certificate.raw.toString('hex');
  return (['production', 'sandbox'] as const).filter((environment) =>
    hex.includes(`060a${environmentOids[environment]}`),
  );
}
