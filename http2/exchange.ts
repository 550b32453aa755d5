/**
 * One request and how it ended: the vocabulary shared by connection, pool and the providers above them.
 *
 * A request ends in exactly one of three ways, and which one is what exact books rest on (RFC 9113 §8.7):
 * a response; `notProcessed`, which is free to be sent again; `unanswered`, which may have been processed.
 */
import type { HeaderTemplate } from './header-template.ts';

export interface Http2Request {
  /** Everything in the header block that many requests share. */
  readonly template: HeaderTemplate;
  /** `:path`, ASCII. Never indexed, by the peer or by a proxy on the way: it may hold a device token. */
  readonly path: string;
  /** Values of the template's `ownNames`, in that order, ASCII. Never indexed either. */
  readonly ownValues?: readonly string[];
  /** A string is sent as UTF-8. Asked for when the request is written; bytes must not change until it ends. */
  readonly body: Uint8Array | string;
  /** Time from the writing of the request to its end. Milliseconds; default: the pool's `requestTimeoutMs`. */
  readonly timeoutMs?: number;
}

export type Http2Result = Http2Response | NotProcessed | Unanswered;

export interface Http2Response {
  readonly kind: 'response';
  /** 200 to 599: interim 1xx answers are skipped. */
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly body: Buffer;
  /**
   * False when the body was over the limit or cut by a reset, a lost connection or the deadline. The status is valid all the
   * same.
   */
  readonly isBodyWhole: boolean;
  /** The connection that the response came on, for example to retire it. */
  readonly connection: ConnectionHandle;
}

export interface ConnectionHandle {
  /** Counts up from 1 in each pool. */
  readonly id: number;
  /** Takes no new requests, lets those in flight end, then closes the connection. A repeat is harmless. */
  retire(): void;
}

/** Provably never processed: sending it again cannot make a double. */
export interface NotProcessed {
  readonly kind: 'notProcessed';
  readonly cause: NotProcessedCause;
  readonly evidence: Evidence;
}

/**
 * - `refused`: RST_STREAM with REFUSED_STREAM.
 * - `goaway`: the stream's id is above the last one a GOAWAY promises to look at.
 * - `deadline`: `queueTimeoutMs` passed before the request could be written; there were connections, but all were full.
 * - `connect_failed`: there was no connection for as long as the request may take; `evidence.error` says why.
 * - `closed`: the pool was closed before the request could be written.
 */
export type NotProcessedCause = 'refused' | 'goaway' | 'deadline' | 'connect_failed' | 'closed';

/** Written, in part at least, and no status came back: the peer may have acted on it. */
export interface Unanswered {
  readonly kind: 'unanswered';
  readonly cause: UnansweredCause;
  readonly evidence: Evidence;
}

/**
 * - `deadline`: the request's time was up.
 * - `reset`: RST_STREAM with any code but REFUSED_STREAM, or a stream ended without a status.
 * - `malformed`: the response broke the rules of HTTP (RFC 9113 §8.1.1).
 * - `connection_lost`: FIN, TCP reset, TLS failure (`evidence.errno`), or cut by `close` after its time.
 * - `ping_timeout`: the connection was open, but did not answer a PING.
 * - `protocol_error`: the peer broke the rules of the connection, so we ended it; `evidence.errorCode`.
 * - `drain_timeout`: a retired connection's time for last answers was up.
 */
export type UnansweredCause =
  | 'deadline'
  | 'reset'
  | 'malformed'
  | 'connection_lost'
  | 'ping_timeout'
  | 'protocol_error'
  | 'drain_timeout';

/** What is known about a request without an answer. A field is absent where it does not apply. */
export interface Evidence {
  readonly connectionId?: number;
  readonly streamId?: number;
  /** True once the operating system had taken the request's last byte. */
  readonly isFlushed: boolean;
  /** HTTP/2 error code of the RST_STREAM or, for `protocol_error`, of our GOAWAY. */
  readonly errorCode?: number;
  /** From the last GOAWAY on that connection. */
  readonly goawayLastStreamId?: number;
  readonly goawayErrorCode?: number;
  /** The GOAWAY's debug data as text, at most 1 KiB; APNs puts `{"reason":…}` there. */
  readonly goawayDebug?: string;
  /** The operating system's or TLS's code: ECONNRESET, ECONNREFUSED, … */
  readonly errno?: string;
  readonly error?: Error;
}

/** The fields of a response, lower-case. A repeated one gives its first value. */
export class ResponseHeaders {
  readonly #flat: readonly string[];

  /** @param flat name, value, name, value, … */
  constructor(flat: readonly string[]) {
    this.#flat = flat;
  }

  get(name: string): string | undefined {
    const flat = this.#flat;
    for (let i = 0; i < flat.length; i += 2) {
      if (flat[i] === name) return flat[i + 1];
    }
    return undefined;
  }
}

const NO_HEADERS: ResponseHeaders = new ResponseHeaders([]);
const NO_BODY = Buffer.alloc(0);

/** A request on its way. The pool makes and resolves it; the connection that carries it keeps the rest up to date. */
export class Exchange {
  readonly request: Http2Request;
  readonly resolve: (result: Http2Result) => void;
  readonly timeoutMs: number;
  /** On the pool's clock, in milliseconds: since when the request has waited to be written; then, when it was written. */
  since: number;
  /** How often the request was taken from a connection to be sent again. */
  resends = 0;

  streamId = 0;
  /** How much more of the body the peer's stream window allows; may be negative (RFC 9113 §6.9.2). */
  sendWindow = 0;
  /** The rest of the body, waiting for a window; undefined: END_STREAM has been written. */
  unsent: Uint8Array | undefined;
  /** Number of the connection's `write` that carries END_STREAM. */
  lastWrite = 0;
  /** How many answers the connection had given when this request was written. */
  answersBefore = 0;

  /** 0 until the final status has come. */
  status = 0;
  headers = NO_HEADERS;
  body = NO_BODY;
  /** Octets of DATA received, padding included. */
  received = 0;

  constructor(request: Http2Request, timeoutMs: number, since: number, resolve: (result: Http2Result) => void) {
    this.request = request;
    this.timeoutMs = timeoutMs;
    this.since = since;
    this.resolve = resolve;
  }

  append(chunk: Buffer): void {
    this.body = this.body.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.body, chunk]);
  }
}
