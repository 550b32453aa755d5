import { ApiError } from './problems.ts';

/** Texts as a body of UTF-8: made as the reader asks, ended when the reader goes. An error of `texts` breaks the body off. */
export function toByteStream(texts: AsyncGenerator<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return streamOf(texts, (text) => encoder.encode(text));
}

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
  return request.body && streamOf(gunzipped(request.body), (block) => block);
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
  const compressed = streamOf(counted(), (block) => block);
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

function streamOf<T>(items: AsyncGenerator<T>, toBytes: (item: T) => Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await items.next();
      if (done) controller.close();
      else controller.enqueue(toBytes(value));
    },
    async cancel() {
      await items.return(undefined);
    },
  });
}

/** A client that sends nothing for a minute has gone. */
const idleTimeoutMs = 60_000;

/** The blocks of a body that may take hours. @throws {ApiError} 408 after a minute of silence. */
export async function* bytesOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new ApiError(408, 'body_timeout', `Nothing was sent for ${idleTimeoutMs} ms.`)),
          idleTimeoutMs,
        );
      });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } finally {
    // Nobody reads on; a body that broke has nothing left to cancel.
    reader.cancel().catch(() => {});
  }
}
