import type { ProviderName } from './device.ts';
import type { JsonObject } from './json.ts';

/**
 * The message of a notification, as stored and as the providers read it. Validated by the API before it is stored. The member
 * named after a provider holds what the neutral fields cannot say, and is laid over what that provider makes of them.
 */
export type Message = NeutralMessage & { [P in ProviderName]?: JsonObject };

/** Everything here reaches the payload of every provider unless its comment says otherwise. */
export interface NeutralMessage {
  title?: string;
  /** APNs only: FCM's notification has no subtitle. */
  subtitle?: string;
  body?: string;
  /** An https URL. APNs: custom key `image_url` with `mutable-content`; FCM: `notification.image`. */
  imageUrl?: string;
  /** An https URL, carried to the app as the data key `icon_url`. */
  iconUrl?: string;
  /** Carried to the app as the data key `deep_link`. */
  deepLink?: string;
  /** Custom keys. Real JSON types for APNs; FCM gets text: strings as they are, objects as JSON text, null left out. */
  data?: JsonObject;
  /** 0 clears the badge and is sent as 0. */
  badge?: number;
  /** A file name in the app, or `default`. */
  sound?: string;
  category?: string;
  threadId?: string;
  /** A newer notification with the same id replaces the older one on the phone. At most 64 bytes of UTF-8. */
  collapseId?: string;
  /**
   * Seconds from the launch, or from the scheduled time, 0 to 2 419 200 (four weeks). 0: one attempt by the provider, never
   * stored.
   */
  ttlSeconds?: number;
  priority?: MessagePriority;
  /** Wakes the app without showing anything: no title, body, sound or badge. */
  silent?: boolean;
  /** The APNs push type; default `alert`, or `background` when silent. */
  pushType?: ApnsPushType;
}

/** `high` wakes the device now, `normal` lets it save power. */
export const messagePriorities = ['high', 'normal'] as const;
export type MessagePriority = (typeof messagePriorities)[number];

export const apnsPushTypes = [
  'alert',
  'background',
  'voip',
  'complication',
  'fileprovider',
  'location',
  'liveactivity',
  'pushtotalk',
  'widgets',
  'controls',
] as const;
export type ApnsPushType = (typeof apnsPushTypes)[number];

export const maxTtlSeconds = 2_419_200;
