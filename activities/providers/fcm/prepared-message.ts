import type { FcmContent } from '../../../domain/payload/fcm.ts';
import type { PreparedMessage } from '../provider.ts';

/** One notification, ready for FCM: the request body but for the registration token, encoded once. */
export class PreparedFcmMessage implements PreparedMessage {
  readonly provider = 'fcm';
  readonly payloadBytes: number;
  readonly #suffix: Buffer;

  constructor(built: FcmContent) {
    this.payloadBytes = built.payloadBytes;
    this.#suffix = Buffer.from(`,${JSON.stringify(built.message).slice(1)}}`);
  }

  body(registrationToken: string): Buffer {
    const token = JSON.stringify(registrationToken);
    // Bytes of a JSON text in UTF-8: never more than three for each of its UTF-16 units.
    const target = Buffer.allocUnsafe(prefix.length + token.length * 3 + this.#suffix.length);
    let at = target.write(prefix, 0, 'latin1');
    at += target.write(token, at);
    at += this.#suffix.copy(target, at);
    return target.subarray(0, at);
  }
}

const prefix = '{"message":{"token":';
