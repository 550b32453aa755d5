import type { Platform } from '../domain/device.ts';
import type { Logger } from '../domain/logger.ts';
import type { ProxyChoice } from '../domain/proxy.ts';
import type { Settings } from '../domain/settings.ts';
import type { DeviceTokenResult } from './device-token.ts';
import type { NotificationContent } from './payload/content.ts';
import type { PushProvider } from './provider.ts';
import type { ProviderTokenStore } from './provider-token-store.ts';

/** All that the rest of Carillon asks of a push provider, except sending: `configure` leads to that. */
export interface ProviderDescription {
  /** Platforms of the devices that the provider reaches. */
  readonly platforms: readonly Platform[];
  readonly override: MessageOverride;
  /** Environment variables; any one of them means that there is a credential. */
  readonly credentialSettings: readonly string[];

  normaliseDeviceToken(text: string): DeviceTokenResult;

  /**
   * Checks all that can be known of a message before it is sent: size in bytes, reserved keys, contradictory fields, overrides
   * included, in every part that one of the platforms `reached` would get. The provider runs the same code when it builds the
   * message.
   * @returns bytes that count against the provider's limit
   * @throws {PayloadError} naming the field
   */
  measure(content: NotificationContent, reached: readonly Platform[]): number;

  /** Reads the provider's settings and notes what is wrong with them. @returns undefined where they hold no credential. */
  configure(settings: Settings): OpenProvider | undefined;
}

/** The part of a message that is for this provider alone. */
export interface MessageOverride {
  description: string;
  /** The part's members; undefined: any. */
  members?: Record<string, OverrideMember>;
}

/** `texts`: an object of texts; otherwise any object, with a description. */
export type OverrideMember = 'texts' | { description: string };

/** Reads and proves the credential. @throws {CredentialError} and the file system's own errors. */
export type OpenProvider = (surroundings: ProviderSurroundings) => Promise<PushProvider>;

export interface ProviderSurroundings {
  providerTokenStore: ProviderTokenStore;
  requestDeadlineMs: number;
  proxyFor: ProxyChoice;
  logger: Logger;
}
