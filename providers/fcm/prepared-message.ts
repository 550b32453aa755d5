import type { Platform } from '../../domain/device.ts';
import type { NotificationContent } from '../payload/content.ts';
import type { PayloadError } from '../payload/payload-error.ts';
import type { PreparedMessage } from '../provider.ts';
import { buildFcmContent } from './payload.ts';

/**
 * One notification, ready for FCM: the request body without the registration token, encoded once, and again whenever the
 * remaining time to live is a second less. FCM takes the time to live as a duration, so it depends on the instant of the request.
 */
export class PreparedFcmMessage implements PreparedMessage {
  readonly target: string;
  /** Platforms whose devices could never take the message, and why. */
  readonly faults: ReadonlyMap<Platform, PayloadError>;
  readonly #content: NotificationContent;
  readonly #nowMs: () => number;
  readonly #expiresAtMs: number;
  #suffix: Buffer;
  /** The suffix is valid after the first instant, up to the second. */
  #holdsAfterMs = Number.NEGATIVE_INFINITY;
  #holdsUntilMs = Number.POSITIVE_INFINITY;

  readonly #prefix: string;

  /**
   * @param aim `validate`: FCM checks all of it and delivers nothing
   * @throws {PayloadError}
   */
  constructor(
    content: NotificationContent,
    project: string,
    nowMs: () => number,
    aim: 'deliver' | 'validate' = 'deliver',
  ) {
    this.#prefix = prefixes[aim];
    this.target = project;
    this.#content = content;
    this.#nowMs = nowMs;
    this.#expiresAtMs = content.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
    const { suffix, faults } = this.#build(nowMs());
    this.#suffix = suffix;
    this.faults = faults;
  }

  get isExpired(): boolean {
    return this.#nowMs() >= this.#expiresAtMs;
  }

  body(registrationToken: string): Buffer {
    const now = this.#nowMs();
    if (now <= this.#holdsAfterMs || now > this.#holdsUntilMs) this.#suffix = this.#build(now).suffix;
    const token = JSON.stringify(registrationToken);
    const prefix = this.#prefix;
    const target = Buffer.allocUnsafe(prefix.length + Buffer.byteLength(token) + this.#suffix.length);
    let at = target.write(prefix, 0, 'latin1');
    at += target.write(token, at);
    this.#suffix.copy(target, at);
    return target;
  }

  #build(nowMs: number) {
    // In whole milliseconds, as a Date has them; a later instant promises less time.
    const now = Math.ceil(nowMs);
    const { message, faults } = buildFcmContent(this.#content, new Date(now));
    if (this.#expiresAtMs !== Number.POSITIVE_INFINITY) {
      const wholeSeconds = Math.floor((this.#expiresAtMs - now) / 1000);
      this.#holdsAfterMs = this.#expiresAtMs - (wholeSeconds + 1) * 1000;
      this.#holdsUntilMs = this.#expiresAtMs - wholeSeconds * 1000;
    }
    return { suffix: Buffer.from(`,${JSON.stringify(message).slice(1)}}`), faults };
  }
}

const prefixes = {
  deliver: '{"message":{"token":',
  validate: '{"validate_only":true,"message":{"token":',
};
