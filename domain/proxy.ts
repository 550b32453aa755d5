/** A proxy that connections to the providers are tunnelled through by CONNECT (RFC 9110 §9.3.6). */
export interface HttpProxy {
  host: string;
  port: number;
  /** Whether the connection to the proxy itself uses TLS. */
  isTls: boolean;
  /** The value of `proxy-authorization`; undefined: the proxy asks for none. A secret. */
  authorization: string | undefined;
}

export interface ProxySettings {
  proxy: HttpProxy;
  /** Hosts that are reached without the proxy, in lower case; a host covers its subdomains, `*` is everything. */
  exceptions: string[];
}

/** The proxy for an address; undefined: none. */
export type ProxyChoice = (url: URL) => HttpProxy | undefined;

/** @throws {TypeError} that says what is wrong without repeating the address: it may hold a password */
export function parseProxy(text: string): HttpProxy {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isTls = url?.protocol === 'https:';
  if (url === undefined || !(isTls || url.protocol === 'http:') || url.hostname === '' || url.pathname !== '/') {
    throw new TypeError('must be an address such as http://proxy.example:3128 or https://user:password@proxy.example');
  }
  return {
    host: withoutBrackets(url.hostname),
    port: url.port === '' ? (isTls ? 443 : 80) : Number(url.port),
    isTls,
    authorization: url.username === '' && url.password === '' ? undefined : basicCredentials(url),
  };
}

/** @param noProxy hosts, each perhaps with a port, separated by commas or spaces */
export function parseProxyExceptions(noProxy: string | undefined): string[] {
  return (noProxy ?? '')
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== '');
}

/** This machine itself is never reached through a proxy. */
export function chooseProxy(settings: ProxySettings | undefined, url: URL): HttpProxy | undefined {
  if (settings === undefined) return undefined;
  const host = withoutBrackets(url.hostname);
  if (host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)) return undefined;
  const port = url.port === '' ? '443' : url.port;
  const isException = settings.exceptions.some((entry) => {
    if (entry === '*') return true;
    // A bare IPv6 address is full of colons; in any other entry a port follows the colon.
    const [, name = entry, ofPort] = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(entry) ?? [];
    const wanted = withoutBrackets(name.replace(/^\*?\./, ''));
    return (ofPort === undefined || ofPort === port) && (host === wanted || host.endsWith(`.${wanted}`));
  });
  return isException ? undefined : settings.proxy;
}

/** RFC 7617, of UTF-8. */
function basicCredentials({ username, password }: URL): string {
  try {
    const bytes = new TextEncoder().encode(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
    return `Basic ${btoa(String.fromCharCode(...bytes))}`;
  } catch {
    throw new TypeError('has a user or password with a % that begins no percent-encoded character; write it as %25');
  }
}

/** An IPv6 address stands in brackets in a URL, and without them in a socket's address. */
function withoutBrackets(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, '$1');
}
