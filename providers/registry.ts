import type { ProviderName } from '../domain/device.ts';
import { apns } from './apns/description.ts';
import type { ProviderDescription } from './description.ts';
import { fcm } from './fcm/description.ts';

/** The one list of providers: whoever needs a rule of one finds it here, and a further provider is one line more. */
export const providers: Record<ProviderName, ProviderDescription> = { apns, fcm };
