import { within } from '../../domain/within.ts';
import { ApiError } from './api-error.ts';

/**
 * A body of blocks and of texts in UTF-8: made as the reader asks, ended when the reader goes. An error of `parts` breaks the body
 * off. `onEnd` is called whatever the end is, also where nothing was read.
 */
export function toByteStream(
  parts: AsyncGenerator<string | Uint8Array>,
  onEnd: () => void = () => {},
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await parts.next();
        if (!done) return controller.enqueue(typeof value === 'string' ? encoder.encode(value) : value);
        onEnd();
        controller.close();
      } catch (error) {
        onEnd();
        throw error;
      }
    },
    async cancel() {
      // Deno does not end the body of a caller who has gone: a generator that reads it ends a minute later.
      onEnd();
      await parts.return(undefined);
    },
  });
}

/** A client that sends nothing for a minute has gone. */
const idleTimeoutMs = 60_000;

/** The blocks of a body that may take hours. @throws {ApiError} 408 after a minute of silence. */
export async function* blocksOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    for (;;) {
      const block = await within(reader.read(), idleTimeoutMs);
      if (!block) throw new ApiError(408, 'body_timeout', `Nothing was sent for ${idleTimeoutMs} ms.`);
      if (block.done) return;
      yield block.value;
    }
  } finally {
    // The rest is not wanted; a body that broke has nothing left to cancel.
    reader.cancel().catch(() => {});
  }
}
