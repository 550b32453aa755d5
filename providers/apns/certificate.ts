import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { ApnsEnvironment } from '../../domain/device.ts';
import { CredentialError } from '../credentials/credential-error.ts';
import { readPkcs12 } from '../credentials/pkcs12.ts';
import { decodeBase64, isPkcs12, unwrap } from '../credentials/private-key.ts';

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
  /** PEM, a .p12 file, or its base64. May hold the key too. */
  certificate: string | Uint8Array;
  /** PEM; where the certificate's file does not hold it. */
  privateKey?: string | undefined;
  /** The password of the .p12 file or of the key. */
  password?: string | undefined;
}

/** Checks that certificate and key belong together and that the certificate is valid now. @throws {CredentialError} */
export function normaliseApnsCertificate(
  input: ApnsCertificateInput,
  now: Date,
): ApnsCertificate & ApnsCertificateFacts {
  const pem = asPem(input);
  const text = pem.certificate;
  const blocks = [...text.matchAll(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g)].map(
    ([block]) => block,
  );
  if (blocks.length === 0)
    throw new CredentialError('certificate', 'There is no certificate in PEM form in this file.');
  const certificates = blocks.map(parseCertificate);
  const key = parseKey(pem.privateKey ?? text, pem.password);

  const own = certificates.findIndex((certificate) => certificate.checkPrivateKey(key));
  if (own < 0) throw new CredentialError('private_key', 'The key does not belong to the certificate.');
  const certificate = certificates[own]!;
  checkValidity(certificate, now);
  return {
    kind: 'certificate',
    certificatePem: [blocks[own]!, ...blocks.filter((_, i) => i !== own)].join('\n'),
    privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }) as string,
    apnsTopic: /^UID=(.+)$/m.exec(certificate.subject)?.[1],
    environments: environmentsOf(certificate),
    expiresAt: new Date(certificate.validTo),
  };
}

/** As `openssl x509 -fingerprint -sha256` shows it, without colons and in small letters. */
export function fingerprintOfCertificate({ certificatePem }: ApnsCertificate): string {
  return new X509Certificate(certificatePem).fingerprint256.replaceAll(':', '').toLowerCase();
}

function asPem({ certificate, privateKey, password }: ApnsCertificateInput) {
  const text = typeof certificate === 'string' ? unwrap(certificate) : new TextDecoder().decode(certificate);
  const bytes = typeof certificate === 'string' && !text.includes('-----BEGIN') ? decodeBase64(text) : certificate;
  if (typeof bytes !== 'string' && bytes !== undefined && isPkcs12(bytes)) {
    const contents = readPkcs12(bytes, password ?? '');
    return { certificate: contents.certificates, privateKey: contents.privateKey, password: undefined };
  }
  return { certificate: unwrap(text), privateKey: privateKey === undefined ? undefined : unwrap(privateKey), password };
}

function parseCertificate(block: string): X509Certificate {
  try {
    return new X509Certificate(block);
  } catch {
    throw new CredentialError('certificate', 'The certificate is damaged.');
  }
}

function parseKey(text: string, password: string | undefined): KeyObject {
  try {
    return createPrivateKey({ key: text, ...(password === undefined ? {} : { passphrase: password }) });
  } catch {
    // What the crypto library says may quote the key.
    throw new CredentialError('private_key', 'There is no usable private key in this file, or its password is wrong.');
  }
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
