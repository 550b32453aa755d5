import { ApiError } from './api-error.ts';
import { toByteStream } from './byte-stream.ts';

/** Lines of JSON seldom shrink to less than a twentieth; what grows more than this is made to fill memory and time. */
const maxExpansion = 100;
/** Small bodies may do as they like. */
const expansionFreeBytes = 1_048_576;

/**
 * The body of a request as it was before `Content-Encoding: gzip`; a body without an encoding as it is.
 * @throws {ApiError} 415 for another encoding; while it is read 400 for what is no gzip, 413 for what grows beyond measure.
 */
export function decodedBody(request: Request): ReadableStream<Uint8Array> | null {
  const encoding = (request.headers.get('content-encoding') ?? '').trim().toLowerCase();
  if (encoding === '' || encoding === 'identity') return request.body;
  if (encoding !== 'gzip') {
    throw new ApiError(415, 'unsupported_media_type', 'Send the body as it is or with Content-Encoding: gzip.', {
      headers: { 'Accept-Encoding': 'gzip, identity' },
    });
  }
  return request.body && toByteStream(gunzipped(request.body));
}

async function* gunzipped(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  let taken = 0;
  let given = 0;
  let bodyFailure: unknown;
  async function* counted(): AsyncGenerator<Uint8Array> {
    try {
      for await (const block of body) {
        taken += block.length;
        yield block;
      }
    } catch (error) {
      bodyFailure = error;
      throw error;
    }
  }
  const compressed = toByteStream(counted());
  const blocks = compressed.pipeThrough<Uint8Array>(new DecompressionStream('gzip') as never);
  try {
    for await (const block of blocks) {
      given += block.length;
      if (given > expansionFreeBytes + taken * maxExpansion) {
        throw new ApiError(413, 'body_too_large', `The body grows to more than ${maxExpansion} times its size.`);
      }
      yield block;
    }
  } catch (cause) {
    if (cause instanceof ApiError || bodyFailure !== undefined) throw bodyFailure ?? cause;
    throw new ApiError(400, 'invalid_encoding', 'The body is not valid gzip.', { cause });
  }
}
