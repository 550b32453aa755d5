/**
 * Messages of a batch differ only in the registration token. Once one of them was read in full, another with the same bytes
 * before and behind its token means the same, as long as the token itself needs no JSON escape.
 */
import { type FcmMessage, readFcmMessage } from './message.ts';

interface Template {
  before: Buffer;
  behind: Buffer;
  message: FcmMessage;
}

const templatesKept = 8;
const probeToken = 'probe:APA91b-probe';
const colon = 0x3a;
const dash = 0x2d;
const underscore = 0x5f;

export class FcmMessages {
  readonly #templates: Template[] = [];

  read(body: Buffer): FcmMessage {
    for (const template of this.#templates) {
      const { before, behind, message } = template;
      const end = body.length - behind.length;
      if (end - before.length < 8) continue;
      if (before.compare(body, 0, before.length) !== 0 || behind.compare(body, end) !== 0) continue;
      if (!isTokenText(body, before.length, end)) continue;
      return { ...message, registrationToken: body.toString('latin1', before.length, end) };
    }
    const message = readFcmMessage(body);
    if (message.error === undefined && message.registrationToken !== '') this.#keep(body, message);
    return message;
  }

  #keep(body: Buffer, message: FcmMessage): void {
    const at = body.indexOf(`"token":"${message.registrationToken}"`);
    if (at < 0) return;
    const start = at + '"token":"'.length;
    const before = Buffer.from(body.subarray(0, start));
    const behind = Buffer.from(body.subarray(start + message.registrationToken.length));
    // The text that was found may be a data value that looks alike: put another token in its place and see for which device the
    // message is.
    const probe = readFcmMessage(Buffer.concat([before, Buffer.from(probeToken), behind]));
    if (probe.error !== undefined || probe.registrationToken !== probeToken) return;
    if (probe.notificationId !== message.notificationId) return;
    this.#templates.unshift({ before, behind, message });
    if (this.#templates.length > templatesKept) this.#templates.pop();
  }
}

function isTokenText(body: Buffer, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const c = body[i]!;
    const isWord = (c >= 0x61 && c <= 0x7a) || (c >= 0x41 && c <= 0x5a) || (c >= 0x30 && c <= 0x39);
    if (!isWord && c !== colon && c !== dash && c !== underscore) return false;
  }
  return true;
}
