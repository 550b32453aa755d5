/** Limits and times of a connection. All have defaults; tests use short ones. Times are in milliseconds. */
export interface ConnectionLimits {
  /** TCP, TLS and the peer's first SETTINGS together. Default 10 s. */
  readonly connectTimeoutMs: number;
  /** Nothing read for this long while answers are due: PING. Default 2 s. */
  readonly pingAfterMs: number;
  /** Nothing read for this long on an idle connection: PING. Default 60 s. */
  readonly idlePingAfterMs: number;
  /**
   * Nothing read for this long after a PING: the connection is dead. Default 5 s; more where answers take long, as a peer may
   * answer a PING only after the requests before it.
   */
  readonly pingTimeoutMs: number;
  /** Longest wait of a request to be written, where there is a connection. Default 60 s. */
  readonly queueTimeoutMs: number;
  /** Longest wait for the last answers once the connection is retired or the peer sent GOAWAY. Default 30 s. */
  readonly drainTimeoutMs: number;
  /** Requests in flight at once where the peer allows more, or sets no limit. Default 1 000. */
  readonly maxStreams: number;
  /** Octets of a response body that are kept; a longer body is cut. Default 16 KiB. */
  readonly maxBodyBytes: number;
  /** Largest response header list, counted as RFC 9113 §6.5.2 does. Default 16 KiB. */
  readonly maxHeaderListBytes: number;
  /**
   * Frames a second that bring no request nearer to its end (PING, SETTINGS, frames of unknown type or for streams long gone, …),
   * besides ten for every request. More is an attack or a fault: ENHANCE_YOUR_CALM. Default 10 000: a stalled peer that wakes up
   * answers all the requests that we have cancelled meanwhile.
   */
  readonly maxIdleFramesPerSecond: number;
  /** First stream id; odd. Default 1. */
  readonly firstStreamId: number;
}

export const DEFAULT_LIMITS: ConnectionLimits = {
  connectTimeoutMs: 10_000,
  pingAfterMs: 2_000,
  idlePingAfterMs: 60_000,
  pingTimeoutMs: 5_000,
  queueTimeoutMs: 60_000,
  drainTimeoutMs: 30_000,
  maxStreams: 1_000,
  maxBodyBytes: 16 * 1024,
  maxHeaderListBytes: 16 * 1024,
  maxIdleFramesPerSecond: 10_000,
  firstStreamId: 1,
};
