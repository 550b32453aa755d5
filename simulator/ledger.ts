/**
 * What the providers really received and accepted: the truth that a sender's books are compared with. Every request fully
 * received is counted before any answer or fault, so a request that was received but never answered is here.
 */
import { byProvider, type ProviderName } from '../domain/device.ts';
import { DeliveryTable } from './delivery-table.ts';

/** The counters of one notification; also the key under which its devices are found. */
export class NotificationLedger {
  readonly key: string;
  /** The id as the sender wrote it, once it was seen in full. */
  readonly notificationId: string;
  readonly seedHigh: number;
  readonly seedLow: number;
  readonly counts = new RequestCounts();
  /** Device tokens accepted more than once, with the number of acceptances. */
  readonly repeated = new Map<string, number>();

  constructor(key: string, notificationId: string) {
    this.key = key;
    this.notificationId = notificationId;
    this.seedHigh = hashInto(0x811c9dc5, 0x01000193, key);
    this.seedLow = hashInto(0x9747b28c, 0x5bd1e995, key);
  }
}

/** Running totals, kept for everything and for each notification. */
export class RequestCounts {
  received = 0;
  accepted = 0;
  distinctReceived = 0;
  distinctAccepted = 0;
  firstReceivedAtMs = 0;
  lastReceivedAtMs = 0;
  readonly receivedByProvider = byProvider(() => 0);
  readonly acceptedByProvider = byProvider(() => 0);
  /** By "<status> <reason>"; faults that answer nothing have a name in place of the status. */
  readonly byStatusReason = new Map<string, number>();
  /** By UNIX second. */
  readonly receivedPerSecond = new Map<number, number>();

  /** Acceptances beyond the first of the same device. */
  get repeats(): number {
    return this.accepted - this.distinctAccepted;
  }

  countEnding(ending: string): void {
    this.byStatusReason.set(ending, (this.byStatusReason.get(ending) ?? 0) + 1);
  }

  countReceived(provider: ProviderName, isFirst: boolean, nowMs: number): void {
    this.received++;
    this.receivedByProvider[provider]++;
    if (isFirst) this.distinctReceived++;
    if (this.firstReceivedAtMs === 0) this.firstReceivedAtMs = nowMs;
    this.lastReceivedAtMs = nowMs;
    const second = Math.floor(nowMs / 1000);
    this.receivedPerSecond.set(second, (this.receivedPerSecond.get(second) ?? 0) + 1);
  }

  countAccepted(provider: ProviderName, isFirst: boolean): void {
    this.accepted++;
    this.acceptedByProvider[provider]++;
    if (isFirst) this.distinctAccepted++;
  }
}

export class Ledger {
  totals = new RequestCounts();
  readonly #notifications = new Map<string, NotificationLedger>();
  readonly #table = new DeliveryTable();
  #hashedNotification: NotificationLedger | undefined;
  #hashedToken = '';
  #high = 0;
  #low = 0;

  /**
   * The counters of a notification, made when it is first seen. An id in UUID form is known by its first three and a half groups,
   * which are all that an apns-id carries of it (`providers/apns/apns-id.ts`).
   */
  notification(notificationId: string): NotificationLedger {
    const key = notificationKey(notificationId);
    let found = this.#notifications.get(key);
    if (found === undefined) {
      found = new NotificationLedger(key, notificationId);
      this.#notifications.set(key, found);
    }
    return found;
  }

  findNotification(notificationId: string): NotificationLedger | undefined {
    return this.#notifications.get(notificationKey(notificationId));
  }

  listNotifications(): NotificationLedger[] {
    return [...this.#notifications.values()];
  }

  /** Records one request; returns how many of this notification the device had received before. */
  receive(notification: NotificationLedger, deviceToken: string, provider: ProviderName, nowMs = Date.now()): number {
    this.#hash(notification, deviceToken);
    const before = this.#table.receive(this.#high, this.#low);
    this.totals.countReceived(provider, before === 0, nowMs);
    notification.counts.countReceived(provider, before === 0, nowMs);
    return before;
  }

  /** Records that the provider took the request: the message reaches the phone, whatever the sender hears. */
  accept(notification: NotificationLedger, deviceToken: string, provider: ProviderName): void {
    this.#hash(notification, deviceToken);
    const before = this.#table.accept(this.#high, this.#low);
    this.totals.countAccepted(provider, before === 0);
    notification.counts.countAccepted(provider, before === 0);
    if (before > 0) notification.repeated.set(deviceToken, before + 1);
  }

  countEnding(notification: NotificationLedger, ending: string): void {
    this.totals.countEnding(ending);
    notification.counts.countEnding(ending);
  }

  read(notificationId: string, deviceToken: string): { received: number; accepted: number } {
    const notification = this.findNotification(notificationId);
    if (notification === undefined) return { received: 0, accepted: 0 };
    this.#hash(notification, deviceToken);
    return this.#table.read(this.#high, this.#low);
  }

  /** Forgets all requests, also for "once" behaviours. */
  reset(): void {
    this.totals = new RequestCounts();
    this.#notifications.clear();
    this.#table.clear();
    this.#hashedNotification = undefined;
  }

  #hash(notification: NotificationLedger, deviceToken: string): void {
    if (this.#hashedNotification === notification && this.#hashedToken === deviceToken) return;
    let high = notification.seedHigh;
    let low = notification.seedLow;
    for (let i = 0; i < deviceToken.length; i++) {
      const code = deviceToken.charCodeAt(i);
      high = Math.imul(high ^ code, 0x01000193);
      low = Math.imul(low ^ code, 0x5bd1e995);
      low ^= low >>> 15;
    }
    this.#high = finish(high);
    this.#low = finish(low);
    this.#hashedNotification = notification;
    this.#hashedToken = deviceToken;
  }
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The part of a notification id that both providers see; an id in another form is kept whole. */
export function notificationKey(notificationId: string): string {
  if (!uuid.test(notificationId)) return notificationId;
  const id = notificationId.toLowerCase();
  return `${id.slice(0, 14)}8${id.slice(15, 24)}`;
}

function hashInto(start: number, factor: number, text: string): number {
  let hash = start;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), factor);
    hash ^= hash >>> 13;
  }
  return hash;
}

function finish(hash: number): number {
  let h = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
