import { isJsonObject, type JsonObject, type JsonValue } from '../domain/json.ts';
import { cleanText } from '../domain/outside-text.ts';
import type { Http2Response } from '../http2/exchange.ts';
import { parseHttpDate, parseRetryAfter } from './retry-after.ts';

/** A provider's answer as the reason tables read it. Only answers other than 200 are read this closely. */
export interface ProviderAnswer {
  httpStatus: number;
  /** Cleaned and cut text of the body, for people and logs. Empty when there was none. */
  text: string;
  /** The body as a JSON object; undefined when it is anything else (a proxy's HTML page, nothing, half a document). */
  json: JsonObject | undefined;
  /** From Retry-After, within one hour; undefined when absent or malformed. */
  retryAfterMs: number | undefined;
  /** The provider's clock, from the Date header. */
  date: Date | undefined;
}

/** How much of a provider's body is kept for people to read. */
export const maxTextLength = 2048;
/** In UTF-8. The text that is kept ends before a cut at this many bytes. */
const maxTextBytes = 3 * maxTextLength + 3;
const maxReasonLength = 128;

export interface RawAnswer {
  httpStatus: number;
  body: Uint8Array;
  retryAfter: string | undefined;
  date: string | undefined;
}

const decoder = new TextDecoder();

/** The answer to a request over HTTP/2. A body that was cut counts as none. */
export function readResponse({ status, headers, body, isBodyWhole }: Http2Response, now: Date): ProviderAnswer {
  return readAnswer(
    {
      httpStatus: status,
      body: isBodyWhole ? body : body.subarray(0, 0),
      retryAfter: headers.get('retry-after'),
      date: headers.get('date'),
    },
    now,
  );
}

export function readAnswer(raw: RawAnswer, now: Date): ProviderAnswer {
  const date = parseHttpDate(raw.date);
  return {
    httpStatus: raw.httpStatus,
    text: cleanText(decoder.decode(raw.body.subarray(0, maxTextBytes)), maxTextLength),
    json: parseObject(raw.body),
    retryAfterMs: parseRetryAfter(raw.retryAfter, date ?? now),
    date,
  };
}

function parseObject(body: Uint8Array): JsonObject | undefined {
  if (body.length === 0) return undefined;
  try {
    const value = JSON.parse(decoder.decode(body)) as JsonValue;
    return isJsonObject(value) ? value : undefined;
  } catch {
    // No error of ours: a proxy or gateway on the way answers in its own format. The status decides.
    return undefined;
  }
}

/** A provider's reason word, made safe to store; undefined when it is not a text or empty. */
export function reasonWord(value: JsonValue | undefined): string | undefined {
  if (typeof value !== 'string') return undefined;
  const reason = cleanText(value, maxReasonLength);
  return reason === '' ? undefined : reason;
}

/** 502 and 504 are a gateway's words (RFC 9110 §15.6.3, §15.6.5): they say nothing about the server behind it. */
export function isFromGateway({ httpStatus }: ProviderAnswer): boolean {
  return httpStatus === 502 || httpStatus === 504;
}

/** Says how far this machine's clock is from the provider's, for the operator who has to set it right. */
export function clockGap(date: Date | undefined, now: Date): { ms: number; text: string } | undefined {
  if (date === undefined) return undefined;
  const ms = now.getTime() - date.getTime();
  const seconds = Math.round(Math.abs(ms) / 1000);
  const amount = seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  return { ms, text: `this machine's clock is ${amount} ${ms < 0 ? 'behind' : 'ahead of'} the provider's` };
}
