import { rootCertificates } from 'node:tls';
import type { Http2PoolOptions } from '../http2/pool.ts';

/** The pool options that a caller may set; the provider itself knows where and as whom to connect. */
export type PoolOptions = Omit<Http2PoolOptions, 'host' | 'port' | 'tls' | 'proxy'>;

export function originOf(url: URL): { host: string; port: number } {
  if (url.protocol !== 'https:') throw new TypeError(`a provider's address begins with https, not ${url.protocol}`);
  // An IPv6 address stands in brackets in a URL, and without them in a socket's address.
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return { host, port: url.port === '' ? 443 : Number(url.port) };
}

/** Node would take given authorities in place of its own; here they are added. */
export function trust(ca: string | undefined): { ca?: string[] } {
  return ca === undefined ? {} : { ca: [...rootCertificates, ca] };
}
