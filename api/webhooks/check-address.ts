import {
  literalAddress,
  type WebhookPlaces,
  webhookAddressFault,
  webhookUrlFault,
} from '../../domain/webhook-address.ts';
import { within } from '../../domain/within.ts';
import { invalidField } from '../http/api-error.ts';

export interface WebhookNetwork {
  places: WebhookPlaces;
  /** All addresses of a name. Default: names are looked up by workers alone. */
  resolve?: ((hostname: string) => Promise<string[]>) | undefined;
}

const deadlineMs = 5_000;

/**
 * A first look, so that a mistake is told at once: what counts is where the worker connects to.
 * @throws {ApiError} 422 url
 */
export async function checkAddress(url: string, { places, resolve }: WebhookNetwork): Promise<void> {
  const fault = webhookUrlFault(url, places);
  if (fault !== undefined) throw invalidField('url', fault);
  const { hostname, protocol } = new URL(url);
  if (resolve === undefined || literalAddress(hostname) !== undefined) return;
  const addresses = await within(
    resolve(hostname).catch(() => []),
    deadlineMs,
  );
  if (addresses === undefined || addresses.length === 0) throw invalidField('url', `${hostname} cannot be looked up.`);
  const isAllowed = addresses.some((address) => !webhookAddressFault(address, places, protocol === 'http:'));
  if (!isAllowed) throw invalidField('url', `${hostname} leads to no address that is allowed.`);
}
