/** One request and the ways it can end: the view that the fake providers have of HTTP/2 and HTTP/1.1 alike. */

export interface Exchange {
  readonly connection: SimulatorConnection;
  /** 0 under HTTP/1.1. */
  readonly streamId: number;
  readonly method: string;
  readonly path: string;
  /** Name, value, name, value … in the order received; names in lower case, pseudo-headers included. */
  readonly headers: readonly string[];
  /** The first `maxBodyBytes` of the body. */
  readonly body: Buffer;
  /** Length of all that was received of the body. */
  readonly bodyBytes: number;
  /** True while the client still waits for an answer on a living connection. */
  readonly isOpen: boolean;

  /**
   * The provider takes the message: no later GOAWAY calls the request unprocessed. False when a GOAWAY has already done so; then
   * the message must not be taken, since the client has been told that it may send it again.
   */
  take(): boolean;
  /** Answers in full. `headers` is a flat list like that of the request. */
  respond(status: number, headers: readonly string[], body?: Buffer | string): void;
  /** Sends the headers of an answer whose body follows by `sendBody`. */
  sendHead(status: number, headers: readonly string[]): void;
  sendBody(part: Buffer, isLast: boolean): void;
  /** RST_STREAM with this code; under HTTP/1.1 the connection is destroyed. */
  resetStream(code: number): void;
  /** Never answers the request, which counts as ended. */
  abandon(): void;
}

export interface SimulatorConnection {
  /** Counts from 1 over all listeners. */
  readonly id: number;
  readonly listener: ListenerName;
  readonly protocol: 'h2' | 'http/1.1';
  readonly openedAtMs: number;
  readonly openStreams: number;
  /** 0 under HTTP/1.1. */
  readonly highestStreamId: number;
  /** Requests fully received. */
  requests: number;
  isClosed: boolean;
  /** What a fake provider keeps about this connection. */
  session: unknown;

  /** Changes MAX_CONCURRENT_STREAMS. A lower limit binds the client once it has acknowledged it. */
  setMaxConcurrentStreams(limit: number): void;
  goaway(options: GoawayOptions): void;
  /** TCP RST, whatever is under way. */
  reset(): void;
  /** FIN: open requests get no answer. */
  end(): void;
  /** Reads nothing and writes nothing from now on; the TCP connection stays. */
  blackHole(): void;
}

export interface GoawayOptions {
  /** Streams above this id are dropped as never processed, except those that were taken. Default: the highest received. */
  lastStreamId?: number;
  /** Default NO_ERROR. */
  errorCode?: number;
  debugData?: string;
  /** Closes the connection once the remaining streams have ended. Default true. */
  closesWhenDone?: boolean;
}

export const listenerNames = ['apns-production', 'apns-sandbox', 'fcm'] as const;
export type ListenerName = (typeof listenerNames)[number];

/** Shared by all connections of a simulator. */
export interface TransportCounters {
  connectionsOpened: number;
  /** Streams refused because MAX_CONCURRENT_STREAMS was exceeded. */
  refusedStreams: number;
  /** Streams above the last id of a GOAWAY: never processed. */
  droppedByGoaway: number;
  /** Breaches of HTTP/2 by the client, and the last one in words. */
  protocolErrors: number;
  lastProtocolError: string;
  /** Requests fully received whose answers have not left yet, and the most at any time. */
  inFlight: number;
  maxInFlight: number;
}

/** The value of the first header of that name; undefined when there is none. */
export function findHeader(headers: readonly string[], name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) if (headers[i] === name) return headers[i + 1];
  return undefined;
}
