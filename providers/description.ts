import type { App } from '../domain/app.ts';
import type { CredentialKind, NewCredential, StoredCredential } from '../domain/credential.ts';
import type { Platform, ProviderName } from '../domain/device.ts';
import type { JsonObject } from '../domain/json.ts';
import type { Logger } from '../domain/logger.ts';
import type { ProviderTraffic } from '../domain/provider-traffic.ts';
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

  /** Reads the provider's settings and notes what is wrong with them. */
  configure(settings: Settings): ConfiguredProvider;
}

/** A provider as the environment knows it: its addresses, for all apps, and where app `default` has its credential in files. */
export interface ConfiguredProvider {
  /** With the credential in the files that the settings name; undefined: they name none. */
  readonly fromFiles: ((app: AppOfProvider, surroundings: ProviderSurroundings) => Promise<PushProvider>) | undefined;

  /**
   * Reads a credential from the fields in which the API takes it, proves it by a signature, and compares it with the app. Loads no
   * HTTP/2 client and asks nobody.
   * @param fields in every usual shape, see `docs/api.md`
   * @throws {CredentialError} naming the field
   */
  read(kind: CredentialKind, fields: JsonObject, app: AppOfProvider, now: Date): NewCredential;

  /** With a stored credential. What the app leaves open is the environment's to say for app `default`, and an error for others. */
  open(
    credential: Pick<StoredCredential, 'kind' | 'secret'>,
    app: AppOfProvider,
    surroundings: ProviderSurroundings,
  ): Promise<PushProvider>;
}

/** What a provider's connections depend on besides the credential; a change of it wants another instance. */
export type AppOfProvider = Pick<App, 'name' | 'apnsTopic' | 'apnsEnvironment' | 'fcmProjectId'>;

/** The part of a message that is for this provider alone. */
export interface MessageOverride {
  description: string;
  /** The part's members; undefined: any. */
  members?: Record<string, OverrideMember>;
}

/** `texts`: an object of texts; otherwise any object, with a description. */
export type OverrideMember = 'texts' | { description: string };

export interface ProviderSurroundings {
  providerTokenStore: ProviderTokenStore;
  requestDeadlineMs: number;
  proxyFor: ProxyChoice;
  logger: Logger;
  /** Where each provider's traffic is counted; default: nowhere that is looked at. */
  traffic?: Record<ProviderName, ProviderTraffic>;
  /** PEM of certificate authorities trusted besides the public ones. */
  ca?: string;
}
