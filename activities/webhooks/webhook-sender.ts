import { Webhook } from 'standardwebhooks';
import { Agent, type Dispatcher } from 'undici';
import type { MasterKeys } from '../../db/master-keys.ts';
import { cleanText } from '../../domain/outside-text.ts';
import type { WebhookPlaces } from '../../domain/webhook-address.ts';
import type { WebhookAttempt } from '../../domain/webhook-attempt.ts';
import { within } from '../../domain/within.ts';
import { guardedConnect, type Resolve } from './guarded-connect.ts';

/** From the look-up of the name to the last byte that is read. */
const usualTimeoutMs = 15_000;
/** Of an answer: enough to tell a person what is wrong. */
const maxAnswerBytes = 2_048;
/** A short answer is read to its end, so that its connection serves the next request. */
const answerPatienceMs = 500;
const maxErrorLength = 300;
/** Each webhook has so many requests under way at most. */
const connectionsPerOrigin = 8;

export interface WebhookRequest {
  url: string;
  /** Each of them signs. */
  secrets: string[];
  eventId: string;
  body: string;
}

interface SenderOptions {
  masterKeys: MasterKeys | undefined;
  places: WebhookPlaces;
  /** Default 15 000. */
  timeoutMs?: number | undefined;
  ca?: string | undefined;
  resolve?: Resolve | undefined;
}

/** Sends webhooks, straight and never through a proxy: behind one, nobody here could say where a name leads. */
export class WebhookSender {
  readonly masterKeys: MasterKeys | undefined;
  readonly #timeoutMs: number;
  readonly #agent: Agent;

  constructor({ masterKeys, timeoutMs = usualTimeoutMs, ...network }: SenderOptions) {
    this.masterKeys = masterKeys;
    this.#timeoutMs = timeoutMs;
    this.#agent = new Agent({
      connect: guardedConnect({ ...network, timeoutMs }),
      connections: connectionsPerOrigin,
      ...{ headersTimeout: timeoutMs, bodyTimeout: timeoutMs, maxHeaderSize: 16_384 },
    });
  }

  /**
   * One request by the scheme of Standard Webhooks. No redirect is followed: whoever moves a webhook says so here.
   * @throws only where `stop` was aborted: nothing is known of the request then
   */
  async send({ url, secrets, eventId, body }: WebhookRequest, stop: AbortSignal): Promise<WebhookAttempt> {
    const now = new Date();
    const timeUp = AbortSignal.timeout(this.#timeoutMs);
    const { origin, pathname, search } = new URL(url);
    try {
      const answer = await this.#agent.request({
        ...{ origin, path: pathname + search, method: 'POST', body },
        signal: AbortSignal.any([stop, timeUp]),
        headers: {
          'content-type': 'application/json',
          'user-agent': 'Carillon-Webhooks/1',
          'webhook-id': eventId,
          'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
          'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(eventId, now, body)).join(' '),
        },
      });
      const text = await readBeginning(answer.body);
      return judge(answer, text);
    } catch (error) {
      if (stop.aborted) throw error;
      if (timeUp.aborted) return { error: `No answer within ${this.#timeoutMs / 1000} s.` };
      return { error: describe(error) };
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

function judge({ statusCode, headers }: Dispatcher.ResponseData, text: string): WebhookAttempt {
  if (statusCode >= 200 && statusCode < 300) return { status: statusCode };
  const isRedirect = statusCode >= 300 && statusCode < 400 && headers.location !== undefined;
  const said = isRedirect ? 'It redirects, which is not followed: give the webhook its new URL.' : text;
  const error = cleanText(`HTTP ${statusCode}. ${said}`, maxErrorLength);
  const retryAfterMs = [429, 503].includes(statusCode) ? readRetryAfter(headers['retry-after']) : undefined;
  return { status: statusCode, error, retryAfterMs };
}

/** RFC 9110 §10.2.3: seconds, or a date. */
function readRetryAfter(value: string | string[] | undefined): number | undefined {
  if (typeof value !== 'string') return undefined;
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return ms > 0 ? ms : undefined;
}

/** The answer is in the status; of the rest as much as comes at once, however much there is. */
async function readBeginning(body: Dispatcher.ResponseData['body']): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const read = async () => {
    for await (const chunk of body) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= maxAnswerBytes) return;
    }
  };
  // What breaks now breaks after the answer.
  await within(
    read().catch(() => {}),
    answerPatienceMs,
  );
  // Not read to its end: the connection goes with it.
  body.destroy();
  return Buffer.concat(chunks).subarray(0, maxAnswerBytes).toString();
}

function describe(error: unknown): string {
  const { message, code, errors } = error as { message?: string; code?: string; errors?: Error[] };
  // Of several addresses of a name.
  const text = message || errors?.map((one) => one.message).join('; ') || code || String(error);
  return cleanText(text, maxErrorLength);
}
