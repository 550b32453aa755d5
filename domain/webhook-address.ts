import ipaddr from 'ipaddr.js';

/** A network in CIDR form, taken apart. */
export type Network = ReturnType<typeof ipaddr.parseCIDR>;

/** @throws {TypeError} */
export function parseNetwork(text: string): Network {
  try {
    return ipaddr.parseCIDR(text);
  } catch {
    throw new TypeError(`"${text}" is no network such as 10.0.0.0/8 or fd00::/8`);
  }
}

/** Where webhooks may go. */
export interface WebhookPlaces {
  /** Besides the public internet, and without TLS too. */
  allowedNetworks: readonly Network[];
}

const maxUrlLength = 2_000;

/** Why no webhook can have this URL; undefined: it can, as far as it alone tells. */
export function webhookUrlFault(text: string, places: WebhookPlaces): string | undefined {
  const url = URL.parse(text);
  if (url === null || text.length > maxUrlLength) return `Must be an https URL of at most ${maxUrlLength} characters.`;
  const isHttp = url.protocol === 'http:';
  if (url.protocol !== 'https:' && !(isHttp && places.allowedNetworks.length > 0)) return 'Must begin with https://.';
  if (url.username !== '' || url.password !== '') return 'Must hold no user and no password.';
  if (url.hash !== '') return 'Must have no fragment.';
  const literal = literalAddress(url.hostname);
  return literal === undefined ? undefined : webhookAddressFault(literal, places, isHttp);
}

/**
 * Why nothing is sent to this address; undefined: it may be. Public unicast alone: nothing private, of this machine or link, shared
 * (RFC 6598), of a cloud's metadata, or embedded in a form that hides it.
 * @param isHttp without TLS it must be in an allowed network
 */
export function webhookAddressFault(address: string, places: WebhookPlaces, isHttp: boolean): string | undefined {
  const ip = parse(address);
  if (ip === undefined) return `${address} is no address.`;
  const isAllowed = places.allowedNetworks.some(
    (network) => network[0].kind() === ip.kind() && ip.match(network as never),
  );
  if (isAllowed) return undefined;
  if (isHttp) return `${address} is in no network that is allowed without TLS.`;
  return isPublic(ip) ? undefined : `${address} is not a public address.`;
}

/** The address that a host name of a URL is; undefined: it is a name. */
export function literalAddress(hostname: string): string | undefined {
  const bare = hostname.replace(/^\[(.*)\]$/, '$1');
  return ipaddr.isValid(bare) ? bare : undefined;
}

type Address = ReturnType<typeof ipaddr.parse>;

function parse(address: string): Address | undefined {
  // An IPv4 address within IPv6 is that IPv4 address.
  return ipaddr.isValid(address) ? ipaddr.process(address) : undefined;
}

const globalUnicast = ipaddr.parseCIDR('2000::/3');

function isPublic(ip: Address): boolean {
  if (ip.kind() === 'ipv4') return ip.range() === 'unicast';
  const v6 = ip as InstanceType<typeof ipaddr.IPv6>;
  // NAT64 (RFC 6052) is the way of a network without IPv4 to what is in its last 32 bits.
  if (v6.range() === 'rfc6052') return isPublic(new ipaddr.IPv4(v6.toByteArray().slice(12)));
  return v6.range() === 'unicast' && v6.match(globalUnicast as [typeof v6, number]);
}
