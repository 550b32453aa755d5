/** Header blocks, put together from HEADERS and CONTINUATION frames (RFC 9113 §4.3, §6.2, §6.10). */
import { ErrorCode, Flag, FrameType, Http2ProtocolError, unpaddedEnd } from './frames.ts';

/** Takes blocks as they become whole. The block is `buffer[start, end)`, still encoded, and valid during the call only. */
export interface HeaderBlockHandler {
  headerBlock(streamId: number, isEndStream: boolean, buffer: Buffer, start: number, end: number): void;
}

/** Largest block, encoded. */
const MAX_BLOCK_BYTES = 64 * 1024;

/** A block in one frame, as nearly every one is, is handed on where it lies; only a longer block is copied. */
export class HeaderBlockReader {
  readonly #handler: HeaderBlockHandler;
  /** The stream of the block whose END_HEADERS has not come; 0: there is none. */
  #streamId = 0;
  #isEndStream = false;
  #parts: Buffer[] = [];
  #bytes = 0;

  constructor(handler: HeaderBlockHandler) {
    this.#handler = handler;
  }

  /** To be called first for every frame. @throws {Http2ProtocolError} inside a block for all but the block's own CONTINUATION. */
  checkTurn(type: number, streamId: number): void {
    if (this.#streamId > 0 && (type !== FrameType.continuation || streamId !== this.#streamId)) {
      throw new Http2ProtocolError(ErrorCode.protocolError, 'a frame inside a header block');
    }
  }

  headers(flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    const blockEnd = unpaddedEnd(flags, buffer, start, end);
    let blockStart = (flags & Flag.padded) === 0 ? start : start + 1;
    if ((flags & Flag.priority) !== 0) blockStart += 5;
    if (blockStart > blockEnd) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'HEADERS too short');
    const isEndStream = (flags & Flag.endStream) !== 0;
    if ((flags & Flag.endHeaders) !== 0) {
      this.#handler.headerBlock(streamId, isEndStream, buffer, blockStart, blockEnd);
      return;
    }
    // Checked here and not with the whole block, as 0 stands for no block.
    if (streamId === 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'HEADERS on stream 0');
    this.#streamId = streamId;
    this.#isEndStream = isEndStream;
    this.#bytes = blockEnd - blockStart;
    this.#parts = [Buffer.from(buffer.subarray(blockStart, blockEnd))];
  }

  continuation(flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    if (this.#streamId === 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'stray CONTINUATION');
    this.#bytes += end - start;
    if (this.#bytes > MAX_BLOCK_BYTES) {
      throw new Http2ProtocolError(ErrorCode.enhanceYourCalm, 'header block too large');
    }
    this.#parts.push(Buffer.from(buffer.subarray(start, end)));
    if ((flags & Flag.endHeaders) === 0) return;
    const block = Buffer.concat(this.#parts);
    this.#streamId = 0;
    this.#parts = [];
    this.#handler.headerBlock(streamId, this.#isEndStream, block, 0, block.length);
  }
}
