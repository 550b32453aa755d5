import { lookup as systemLookup } from 'node:dns';
import { buildConnector } from 'undici';
import { literalAddress, type WebhookPlaces, webhookAddressFault } from '../../domain/webhook-address.ts';

interface Address {
  address: string;
  family: number;
}

/** All addresses of a name, as `dns.lookup` gives them. */
export type Resolve = (
  hostname: string,
  options: { all: true },
  done: (error: Error | null, addresses: Address[]) => void,
) => void;

interface ConnectOptions {
  places: WebhookPlaces;
  timeoutMs: number;
  /** Certificate authorities beside the usual ones. */
  ca?: string | undefined;
  /** Default: that of the system. */
  resolve?: Resolve | undefined;
}

/**
 * How undici connects to a webhook: to an address that is allowed, and to no other. The address that was looked at is the one that is
 * connected to, so it does not matter what the name meant before, or will mean in a moment.
 */
export function guardedConnect(options: ConnectOptions): buildConnector.connector {
  const byProtocol = { 'https:': connector(options, false), 'http:': connector(options, true) };
  return (target, done) => {
    const isHttp = target.protocol !== 'https:';
    // No name is looked up for an address.
    const literal = literalAddress(target.hostname);
    const fault = literal && webhookAddressFault(literal, options.places, isHttp);
    if (fault) done(new Error(fault), null);
    else byProtocol[isHttp ? 'http:' : 'https:'](target, done);
  };
}

function connector({ places, timeoutMs, ca, resolve = systemLookup }: ConnectOptions, isHttp: boolean) {
  return buildConnector({
    timeout: timeoutMs,
    ...(ca !== undefined && { ca }),
    // Of `net.connect` and `tls.connect`.
    lookup(hostname: string, { all }: { all?: boolean }, done: (error: Error | null, ...found: unknown[]) => void) {
      resolve(hostname, { all: true }, (error, addresses) => {
        if (error) return done(error);
        const allowed = addresses.filter(({ address }) => webhookAddressFault(address, places, isHttp) === undefined);
        const [first] = allowed;
        if (first === undefined) done(new Error(`${hostname} leads to no address that is allowed.`));
        else if (all) done(null, allowed);
        else done(null, first.address, first.family);
      });
    },
  } as buildConnector.BuildOptions);
}
