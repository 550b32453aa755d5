import type { MiddlewareHandler } from 'hono';
import { within } from '../../domain/within.ts';
import { ApiError } from './api-error.ts';
import { decodedBody } from './content-encoding.ts';
import type { ApiEnv } from './env.ts';
import { joinBytes } from './join-bytes.ts';
import { parseJson, refuseUnstorable } from './storable.ts';

const maxBodyBytes = 1_048_576;

const decoder = new TextDecoder('utf-8', { fatal: true });

const jsonMediaType = /^application\/([\w.-]+\+)?json$/i;

/**
 * Reads the body once, for every route but those that stream it, and refuses what no route could store: too large (413), too
 * slow (408), not UTF-8 (400), not JSON (400), NUL and the like (422 with the field). Routes and their schemas then see plain
 * JSON; an empty body counts as an empty object, so that the schema names what is missing.
 */
export const readJsonBody =
  (options: { maxBytes?: number; timeoutMs?: number } = {}): MiddlewareHandler<ApiEnv> =>
  async (c, next) => {
    const { method } = c.req;
    if (method === 'GET' || method === 'HEAD' || method === 'DELETE') return next();
    const bytes = await readBytes(c.req.raw, options.maxBytes ?? maxBodyBytes, options.timeoutMs ?? 30_000);
    const mediaType = (c.req.header('content-type') ?? '').split(';')[0]!.trim();
    if (bytes.length > 0 && !jsonMediaType.test(mediaType)) {
      throw new ApiError(415, 'unsupported_media_type', 'Send JSON with Content-Type: application/json.');
    }
    const checked = checkedText(bytes);
    c.set('hasBody', checked !== '');
    // A request without a body has no media type to be wrong: it must stay empty for the schemas after this.
    const text = checked === '' && mediaType !== '' ? '{}' : checked;
    // Hono keeps promises there, whatever its type says.
    c.req.bodyCache.text = Promise.resolve(text) as unknown as string;
    return next();
  };

/** For routes to which an empty object is as good as any other: a request that lost its body must not pass for one. */
export const requireBody: MiddlewareHandler<ApiEnv> = async (c, next) => {
  if (!c.var.hasBody)
    throw new ApiError(400, 'malformed_json', 'The body is missing: send a JSON object, {} at least.');
  await next();
};

function checkedText(bytes: Uint8Array): string {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch (cause) {
    throw new ApiError(400, 'invalid_encoding', 'The body is not valid UTF-8.', { cause });
  }
  if (text.trim() === '') return '';
  refuseUnstorable(parseJson(text, 'The body is not valid JSON.'));
  return text;
}

async function readBytes(request: Request, maxBytes: number, timeoutMs: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new ApiError(413, 'body_too_large', `The body has more than ${maxBytes} bytes.`, {
      extra: { max_bytes: maxBytes },
    });
  const length = request.headers.get('content-length');
  if (Number(length ?? 0) > maxBytes) throw tooLarge();
  // Node's server has such a body without making a stream of it, which costs a fifth of a whole request.
  if (length !== null && !request.headers.has('content-encoding')) return inTime(request.bytes(), timeoutMs);
  const body = decodedBody(request);
  if (body === null) return new Uint8Array();
  const reader = body.getReader();
  async function readAll(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (let size = 0; ; ) {
      const { done, value } = await reader.read();
      if (done) return joinBytes(parts);
      size += value.length;
      if (size > maxBytes) throw tooLarge();
      parts.push(value);
    }
  }
  return inTime(readAll(), timeoutMs).catch((error) => {
    // The rest is not wanted; a body that broke has nothing left to cancel.
    reader.cancel().catch(() => {});
    throw error;
  });
}

async function inTime(reading: Promise<Uint8Array>, timeoutMs: number): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await within(reading, timeoutMs);
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    // The caller hung up: its socket's ECONNRESET must not pass for the database's.
    throw new ApiError(400, 'malformed_request', 'The body ended before its end.', { cause });
  }
  if (bytes) return bytes;
  throw new ApiError(408, 'body_timeout', `The body took longer than ${timeoutMs} ms.`);
}
