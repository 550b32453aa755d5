import type { ProviderName } from './device.ts';
import type { Message } from './message.ts';
import type { InDoubtPolicy } from './notification-state.ts';

/** A message to one person, or to a few: not a notification, which has an audience. */
export interface NewDirectMessage {
  /** UUID v7. */
  id: string;
  appId: number;
  message: Message;
  to: Recipients;
  inDoubtPolicy: InDoubtPolicy;
  /** `error`: the message is refused where the app has no device of one of its recipients. Default: it is skipped. */
  unknownRecipient?: UnknownRecipient;
  /** With the hash of the request: a second one under the same key is the first again, or an error. */
  idempotency: { key: string; requestHash: string } | undefined;
}

export const unknownRecipientRules = ['skip', 'error'] as const;
export type UnknownRecipient = (typeof unknownRecipientRules)[number];

/** As the caller names them; exactly one of the four. */
export interface Recipients {
  externalId?: string;
  userId?: string;
  externalIds?: string[];
  userIds?: string[];
}

/** A recipient without a device to send to. */
export interface SkippedRecipient {
  externalId?: string;
  userId?: string;
  reason: SkipReason;
}

/** `device_gone`: what it has is retired, or registered without a token. */
type SkipReason = 'unknown_recipient' | 'device_gone';

/** The live devices that a message goes to, as they were when it was accepted. */
export interface Addressed {
  devices: { deviceId: number; externalId: string; provider: ProviderName }[];
  skipped: SkippedRecipient[];
}

/** Devices that one message may go to. */
export const maxDevicesOfMessage = 100;

/**
 * Seconds after which a message is no longer sent to a device; undefined: it waits for as long as it takes. With a ttl of 0 the provider
 * tries once and keeps nothing: such a message is worth nothing later, but must outlast the death of a worker.
 */
export function expiresAfterSeconds({ ttlSeconds }: Pick<Message, 'ttlSeconds'>): number | undefined {
  return ttlSeconds === 0 ? secondsForOneTry : ttlSeconds;
}

const secondsForOneTry = 60;
