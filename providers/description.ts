import type { Platform } from '../domain/device.ts';
import type { Logger } from '../domain/logger.ts';
import type { ProxyChoice } from '../domain/proxy.ts';
import type { Settings } from '../domain/settings.ts';
import type { DeviceTokenResult } from './device-token.ts';
import type { NotificationContent } from './payload/content.ts';
import type { PushProvider } from './provider.ts';
import type { ProviderTokenStore } from './provider-token-store.ts';

/** A push provider: all that the rest of Carillon asks of it, but sending, which `configure` leads to. */
export interface ProviderDescription {
  /** Of the devices that it reaches. */
  readonly platforms: readonly Platform[];
  readonly override: MessageOverride;
  /** Environment variables of which one means that there is a credential. */
  readonly credentialSettings: readonly string[];

  normaliseDeviceToken(text: string): DeviceTokenResult;

  /**
   * Everything that can be known of a message before it is sent: size in bytes, reserved keys, contradictory fields, overrides
   * included, in whatever would be carried to one of the platforms `reached`. The provider runs the same code when it builds it.
   * @returns bytes that count against the provider's limit
   * @throws {PayloadError} naming the field
   */
  measure(content: NotificationContent, reached: readonly Platform[]): number;

  /** Reads its settings, noting what is wrong with them. @returns undefined where they hold no credential. */
  configure(settings: Settings): OpenProvider | undefined;
}

/** What a message may say for this provider alone. */
export interface MessageOverride {
  description: string;
  /** Its members; undefined: any. */
  members?: Record<string, OverrideMember>;
}

/** `texts`: an object of texts; otherwise any object, described. */
export type OverrideMember = 'texts' | { description: string };

/** Reads and proves the credential. @throws {CredentialError} and the file system's own errors. */
export type OpenProvider = (surroundings: ProviderSurroundings) => Promise<PushProvider>;

export interface ProviderSurroundings {
  providerTokenStore: ProviderTokenStore;
  requestDeadlineMs: number;
  proxyFor: ProxyChoice;
  logger: Logger;
}
