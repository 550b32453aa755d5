/** What an APNs client certificate allows, read from Apple's extensions in it. */
import type { TLSSocket } from 'node:tls';
import type { ApnsEnvironment } from '../../domain/device.ts';
import { appleExtensions } from '../certificates.ts';
import { derObjectId } from '../der.ts';

export interface ApnsClientCertificate {
  topics: ReadonlySet<string>;
  environments: ReadonlySet<ApnsEnvironment>;
  notAfter: Date;
}

const developmentId = derObjectId(appleExtensions.development);
const productionId = derObjectId(appleExtensions.production);

/** Undefined when the client showed none that the simulator's own authority signed. */
export function readClientCertificate(socket: TLSSocket): ApnsClientCertificate | undefined {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined;
  if (certificate === undefined) return undefined;
  const bundleId = /^UID=(.+)$/m.exec(certificate.subject)?.[1];
  if (bundleId === undefined) return undefined;
  const environments = new Set<ApnsEnvironment>();
  if (certificate.raw.includes(developmentId)) environments.add('sandbox');
  if (certificate.raw.includes(productionId)) environments.add('production');
  return { topics: new Set([bundleId]), environments, notAfter: new Date(certificate.validTo) };
}
