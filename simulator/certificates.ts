/**
 * X.509 certificates (RFC 5280) for the simulator, made on the spot: a CA, a server certificate for the loopback
 * names, and APNs client certificates with Apple's own extensions (providers' certificate authentication).
 */
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import type { ApnsEnvironment } from '../domain/device.ts';
import {
  derBitString,
  derBoolean,
  derContext,
  derInteger,
  derNull,
  derObjectId,
  derOctetString,
  derSequence,
  derSet,
  derTime,
  derUtf8,
} from './der.ts';

export interface Certificate {
  name: string;
  /** PEM. */
  certificate: string;
  /** PKCS#8 PEM. */
  privateKey: string;
}

/** Apple's extensions: which environments the certificate serves, and which topics it may push to. */
export const appleExtensions = {
  development: '1.2.840.113635.100.6.3.1',
  production: '1.2.840.113635.100.6.3.2',
  topics: '1.2.840.113635.100.6.3.6',
} as const;

const oid = {
  commonName: '2.5.4.3',
  userId: '0.9.2342.19200300.100.1.1',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
};
const lifetimeMs = 397 * 86_400_000;

export function createAuthority(name: string): Certificate {
  return issue({
    name,
    extensions: [
      extension(oid.basicConstraints, derSequence(derBoolean(true)), true),
      extension(oid.keyUsage, derBitString(Buffer.from([0b0000_0110]), 1), true),
    ],
  });
}

/** A server certificate for `localhost`, 127.0.0.1 and ::1. */
export function createServerCertificate(authority: Certificate): Certificate {
  const names = derSequence(
    derContext(2, Buffer.from('localhost'), false),
    derContext(7, Buffer.from([127, 0, 0, 1]), false),
    derContext(7, Buffer.from([...new Array(15).fill(0), 1]), false),
  );
  return issue({
    name: 'localhost',
    authority,
    extensions: [...leafExtensions(oid.serverAuth), extension(oid.subjectAltName, names)],
  });
}

export interface ApnsClientCertificateOptions {
  /** The bundle id, put in the subject's UID. */
  apnsTopic: string;
  /** Further topics, such as `<bundle id>.voip`. */
  furtherTopics?: string[];
  /** Default both. */
  environments?: ApnsEnvironment[];
}

/** What Apple calls an "Apple Push Services" certificate. */
export function createApnsClientCertificate(
  authority: Certificate,
  options: ApnsClientCertificateOptions,
): Certificate {
  const environments = options.environments ?? ['production', 'sandbox'];
  const extensions = leafExtensions(oid.clientAuth);
  if (environments.includes('sandbox')) extensions.push(extension(appleExtensions.development, derNull()));
  if (environments.includes('production')) extensions.push(extension(appleExtensions.production, derNull()));
  const topics = [options.apnsTopic, ...(options.furtherTopics ?? [])];
  const entries = topics.flatMap((topic) => [derUtf8(topic), derSequence(derUtf8('app'))]);
  extensions.push(extension(appleExtensions.topics, derSequence(...entries)));
  return issue({
    name: `Apple Push Services: ${options.apnsTopic}`,
    userId: options.apnsTopic,
    authority,
    extensions,
  });
}

interface Request {
  name: string;
  userId?: string;
  /** Absent: self-signed. */
  authority?: Certificate;
  extensions: Buffer[];
}

function issue(request: Request): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const privatePem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const signer = request.authority?.privateKey ?? privatePem;
  const algorithm = derSequence(derObjectId(oid.ecdsaWithSha256));
  const startsAt = new Date(Date.now() - 86_400_000);
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const toBeSigned = derSequence(
    derContext(0, derInteger(2)),
    derInteger(serial),
    algorithm,
    distinguishedName(request.authority?.name ?? request.name),
    derSequence(derTime(startsAt), derTime(new Date(startsAt.getTime() + lifetimeMs))),
    distinguishedName(request.name, request.userId),
    publicKey.export({ type: 'spki', format: 'der' }) as Buffer,
    derContext(
      3,
      derSequence(
        ...request.extensions,
        extension(oid.subjectKeyId, derOctetString(keyId(publicKey))),
        extension(oid.authorityKeyId, derSequence(derContext(0, keyId(createPublicKey(signer)), false))),
      ),
    ),
  );
  const der = derSequence(toBeSigned, algorithm, derBitString(sign('sha256', toBeSigned, signer)));
  const lines = der.toString('base64').match(/.{1,64}/g)!;
  return {
    name: request.name,
    certificate: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
    privateKey: privatePem,
  };
}

function distinguishedName(commonName: string, userId?: string): Buffer {
  const attribute = (id: string, value: string) => derSet(derSequence(derObjectId(id), derUtf8(value)));
  const attributes = [attribute(oid.commonName, commonName)];
  if (userId !== undefined) attributes.unshift(attribute(oid.userId, userId));
  return derSequence(...attributes);
}

function leafExtensions(usage: string): Buffer[] {
  return [
    extension(oid.basicConstraints, derSequence(), true),
    extension(oid.keyUsage, derBitString(Buffer.from([0b1000_0000]), 7), true),
    extension(oid.extendedKeyUsage, derSequence(derObjectId(usage))),
  ];
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return derSequence(derObjectId(id), ...(critical ? [derBoolean(true)] : []), derOctetString(value));
}

function keyId(key: KeyObject): Buffer {
  return createHash('sha1')
    .update(key.export({ type: 'spki', format: 'der' }) as Buffer)
    .digest();
}
