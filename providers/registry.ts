import type { ProviderName } from '../domain/device.ts';
import { apns } from './apns/description.ts';
import type { ProviderDescription } from './description.ts';
import { fcm } from './fcm/description.ts';

/** The one list of providers: the rules of each are found here, and a further provider is one more line. */
export const providers: Record<ProviderName, ProviderDescription> = { apns, fcm };
