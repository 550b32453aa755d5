/**
 * The connections to one origin, and the queue in front of them.
 *
 * Requests wait here and nowhere else, so that they can go to whichever connection has room. Connections are few: another one is
 * opened only while requests wait, one at a time, never faster than a set rate, with growing pauses while none works (providers
 * treat quick reconnects as an attack). A request that a connection gives back as provably not processed is sent again from here,
 * within the request's time and a small count.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions as TlsOptions } from 'node:tls';
import { addOne, ProviderTraffic } from '../domain/provider-traffic.ts';
import type { HttpProxy } from '../domain/proxy.ts';
import { type ConnectionEnding, type ConnectionOwner, Http2Connection } from './connection.ts';
import {
  type Evidence,
  Exchange,
  type Http2Request,
  type Http2Result,
  type NotProcessedCause,
  type UnansweredCause,
} from './exchange.ts';
import { FlowLimit } from './flow-limit.ts';
import { BufferPool } from './frames.ts';
import { type ConnectionLimits, DEFAULT_LIMITS } from './limits.ts';
import { type Opening, openTunnel } from './tunnel.ts';

export interface Http2PoolOptions extends Partial<ConnectionLimits> {
  readonly host: string;
  readonly port: number;
  /** Trust, client certificate, servername. False: cleartext with prior knowledge (RFC 9113 §3.3), for benches. */
  readonly tls?: Pick<TlsOptions, 'ca' | 'cert' | 'key' | 'passphrase' | 'servername' | 'rejectUnauthorized'> | false;
  /** The proxy that TLS connections are tunnelled through; undefined: straight to the host. */
  readonly proxy?: HttpProxy | undefined;
  /** Default 4. Retired connections that wait for their last answers are not counted. */
  readonly maxConnections?: number;
  /** New connections a minute, on average; as many as `maxConnections` may be opened in a row. Default 60. */
  readonly maxConnectsPerMinute?: number;
  /** Pause after the first connection that failed; doubled for each further one. Default 1 s. */
  readonly backoffMs?: number;
  /** Longest pause. Default 60 s. */
  readonly maxBackoffMs?: number;
  /** Default for requests that do not say. Default 15 s. */
  readonly requestTimeoutMs?: number;
  /** Requests under way at once before the first answers have shown how many the peer takes. Default 20. */
  readonly initialRequests?: number;
  /** How often a request is sent again after it was provably not processed. Default 5. */
  readonly maxResends?: number;
  /** A connection without requests that has been silent this long must answer a PING before it is used. Default 10 s. */
  readonly probeAfterMs?: number;
  /** A connection without requests is closed after this time. Default 30 min. */
  readonly idleTimeoutMs?: number;
  /** A connection is replaced at this age. Default 24 h. */
  readonly maxAgeMs?: number;
  /** How often deadlines are checked: the precision of all times above. Default 100 ms. */
  readonly tickMs?: number;
  /** Milliseconds; must not go back. Default `performance.now`. */
  readonly clock?: () => number;
  /** From 0 (included) to 1 (excluded). Default `Math.random`. */
  readonly random?: () => number;
  /** Where all is counted that happens, beside what other pools count there. Default: for itself. */
  readonly traffic?: ProviderTraffic;
}

/**
 * Requests may wait in the peer's queue for this share of their time: enough to keep a peer busy that takes them in bursts of a second.
 * More would bring no speed, live through more garbage collections, and be in doubt after a crash.
 */
const STANDING_SHARE = 1 / 75;
/** A tick is late when it comes this long after the one before. */
const LATE_MS = 1000;
/** A peer that answers this many times slower than it did is not yet dead. */
const SLOWDOWN_FACTOR = 10;

/** Numbers since the pool was made, and as of now. */
export interface Http2PoolStats {
  /** Now: connections that take requests; being opened; retired and waiting for their last answers. */
  open: number;
  connecting: number;
  draining: number;
  /** Now: requests on connections; in the queue. */
  inFlight: number;
  queued: number;
  /** Now: requests that may be on connections, by what the peer's answers have shown. */
  limit: number;
  /** Ever: connections asked for; requests by ending; requests sent again. */
  opened: number;
  answered: number;
  notProcessed: number;
  unanswered: number;
  resent: number;
  /** Ever: connections by how they ended; `done` is the orderly end. */
  endings: Partial<Record<ConnectionEnding['cause'], number>>;
  /** Why the last connection that ended out of order did so. */
  lastError: Error | undefined;
}

/** A connection without an answer within this time of being ready, or of a PING, no longer delays the opening of others. */
const WARM_UP_MS = 1000;

export class Http2Pool {
  readonly #core: PoolCore;

  constructor(options: Http2PoolOptions) {
    this.#core = new PoolCore(options);
  }

  /**
   * Sends a request and tells how it ended. Always resolves, exactly once: at the latest when the request has waited
   * `queueTimeoutMs` to be written, or when its time since then is up (to the tick). A request that ends as `notProcessed` has
   * already been sent again as often as time and `maxResends` allowed.
   */
  send(request: Http2Request): Promise<Http2Result> {
    return new Promise((resolve) => this.#core.send(request, resolve));
  }

  /** `send` for a caller with a promise of its own. */
  start(request: Http2Request, onEnd: (result: Http2Result) => void): void {
    this.#core.send(request, onEnd);
  }

  /** How many requests the pool can usefully be given at once; more would only wait here. Follows the peer's pace. */
  get usefulRequests(): number {
    return this.#core.usefulRequests;
  }

  stats(): Http2PoolStats {
    return this.#core.stats();
  }

  /**
   * Refuses new requests, answers those still queued `notProcessed`, lets those in flight end for at most `timeoutMs` (default 10
   * s), then cuts the connections. Resolves when all are closed. A repeat waits for the same end.
   */
  close(timeoutMs = 10_000): Promise<void> {
    return this.#core.close(timeoutMs);
  }
}

/** Apart from `Http2Pool` so that what connections report is not part of what callers see. */
class PoolCore implements ConnectionOwner {
  readonly #options: Required<Omit<Http2PoolOptions, 'tls' | 'proxy'>> & Pick<Http2PoolOptions, 'tls' | 'proxy'>;
  readonly #traffic: ProviderTraffic;
  readonly #buffers = new BufferPool();
  #connections: Http2Connection[] = [];
  #nextConnectionId = 1;

  #queue = new Queue<Exchange>();
  /** Not later than the earliest deadline in the queue. */
  #nextDeadlineAt = Number.POSITIVE_INFINITY;
  /** When a connection that takes requests was last seen. */
  #lastReadyAt = Number.NEGATIVE_INFINITY;

  readonly #flow: FlowLimit<Exchange>;
  /** Requests on connections, and how many of them no longer wait in the peer's queue. */
  #inFlight = 0;
  #lost = 0;

  /** Connections in a row that never answered anything. */
  #failures = 0;
  readonly #failed = new WeakSet<Http2Connection>();
  #backoffUntil = Number.NEGATIVE_INFINITY;
  #connectTokens: number;
  #connectTokensAt: number;

  #ticker: ReturnType<typeof setInterval> | undefined;
  #tickedAt = 0;
  #isCatchingUp = false;
  #closing: Promise<void> | undefined;
  #onAllClosed: (() => void) | undefined;

  readonly #counts = { opened: 0, answered: 0, notProcessed: 0, unanswered: 0, resent: 0 };
  readonly #endings: Http2PoolStats['endings'] = {};
  #lastError: Error | undefined;

  constructor(options: Http2PoolOptions) {
    this.#options = {
      ...DEFAULT_LIMITS,
      maxConnections: 4,
      maxConnectsPerMinute: 60,
      backoffMs: 1000,
      maxBackoffMs: 60_000,
      requestTimeoutMs: 15_000,
      initialRequests: 20,
      maxResends: 5,
      probeAfterMs: 10_000,
      idleTimeoutMs: 30 * 60_000,
      maxAgeMs: 24 * 60 * 60_000,
      tickMs: 100,
      clock: () => performance.now(),
      random: Math.random,
      traffic: new ProviderTraffic(),
      ...options,
    };
    if (this.#options.maxConnections < 1 || this.#options.firstStreamId % 2 !== 1) {
      throw new TypeError('maxConnections must be at least 1 and firstStreamId odd');
    }
    this.#traffic = this.#options.traffic;
    this.#connectTokens = this.#options.maxConnections;
    this.#connectTokensAt = this.#options.clock();
    const { initialRequests, maxConnections, maxStreams, requestTimeoutMs } = this.#options;
    this.#flow = new FlowLimit({
      initial: initialRequests,
      max: maxConnections * maxStreams,
      targetMs: requestTimeoutMs * STANDING_SHARE,
    });
  }

  get usefulRequests(): number {
    return this.#flow.limit;
  }

  send(request: Http2Request, resolve: (result: Http2Result) => void): void {
    const timeoutMs = request.timeoutMs ?? this.#options.requestTimeoutMs;
    const exchange = new Exchange(request, timeoutMs, this.#options.clock(), resolve);
    if (this.#closing !== undefined) {
      this.#settleNotProcessed(exchange, 'closed', { isFlushed: false });
      return;
    }
    this.#enqueue(exchange);
    this.#dispatch();
  }

  stats(): Http2PoolStats {
    const count = (is: (connection: Http2Connection) => boolean) => this.#connections.filter(is).length;
    return {
      open: count((connection) => connection.isReady),
      connecting: count((connection) => connection.isConnecting),
      draining: count((connection) => connection.isRetired),
      inFlight: this.#inFlight,
      queued: this.#queue.length,
      limit: this.#flow.limit,
      ...this.#counts,
      endings: { ...this.#endings },
      lastError: this.#lastError,
    };
  }

  close(timeoutMs: number): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      let exchange = this.#queue.shift();
      for (; exchange !== undefined; exchange = this.#queue.shift()) {
        this.#settleNotProcessed(exchange, 'closed', { isFlushed: false });
      }
      const patience = setTimeout(() => {
        for (const connection of [...this.#connections]) connection.destroy();
      }, timeoutMs);
      this.#onAllClosed = () => {
        clearTimeout(patience);
        this.#stopTicking();
        resolve();
      };
      // `retire` closes a connection without requests at once, which changes the list.
      for (const connection of [...this.#connections]) connection.retire();
      if (this.#connections.length === 0) this.#onAllClosed();
    });
    return this.#closing;
  }

  // Queue

  #enqueue(exchange: Exchange): void {
    this.#queue.push(exchange);
    const deadlineAt = this.#queueDeadline(exchange);
    if (deadlineAt < this.#nextDeadlineAt) this.#nextDeadlineAt = deadlineAt;
    this.#startTicking();
  }

  #dispatch(): void {
    while (this.#queue.length > 0 && this.#inFlight - this.#lost < this.#flow.limit) {
      const connection = this.#pick();
      if (connection === undefined) {
        this.#openIfNeeded();
        return;
      }
      const exchange = this.#queue.shift()!;
      this.#inFlight++;
      this.#traffic.now.requests++;
      if (this.#flow.needsProbe) this.#flow.probe(exchange, this.#options.clock());
      connection.start(exchange);
    }
  }

  /** The least busy connection that has room. A connection that has long been silent is asked for a sign of life first. */
  #pick(): Http2Connection | undefined {
    let best: Http2Connection | undefined;
    for (const connection of this.#connections) {
      if (connection.spare === 0) continue;
      if (best === undefined || connection.inFlight < best.inFlight) best = connection;
    }
    if (best === undefined || best.inFlight > 0) return best;
    if (this.#options.clock() - best.lastReadAt < this.#options.probeAfterMs) return best;
    // A request written into a dead connection would be in doubt; a PING lost there costs nothing.
    best.probe();
    return this.#pick();
  }

  /** A request that waits for its turn may wait long; without any connection it waits only as long as an answer may take. */
  #queueDeadline({ since, timeoutMs }: Exchange): number {
    const { queueTimeoutMs } = this.#options;
    return Math.min(since + queueTimeoutMs, Math.max(since, this.#lastReadyAt) + timeoutMs);
  }

  #expireQueue(now: number): void {
    let next = Number.POSITIVE_INFINITY;
    const hasConnection = this.#connections.some((connection) => connection.isReady);
    for (let left = this.#queue.length; left > 0; left--) {
      const exchange = this.#queue.shift()!;
      const deadlineAt = this.#queueDeadline(exchange);
      if (deadlineAt > now) {
        next = Math.min(next, deadlineAt);
        this.#queue.push(exchange);
        continue;
      }
      const error = hasConnection ? undefined : this.#lastError;
      this.#settleNotProcessed(exchange, hasConnection ? 'deadline' : 'connect_failed', {
        isFlushed: false,
        ...(error === undefined ? {} : { error }),
        ...(error !== undefined && 'code' in error && typeof error.code === 'string' ? { errno: error.code } : {}),
      });
    }
    this.#nextDeadlineAt = next;
  }

  // Connections

  readonly #tick = (): void => {
    const now = this.#options.clock();
    const isLate = now - this.#tickedAt > LATE_MS + this.#options.tickMs;
    this.#tickedAt = now;
    // This process stood still: answers that came meanwhile have not been read yet, and without them nothing may be judged.
    this.#isCatchingUp = isLate && !this.#isCatchingUp;
    if (this.#isCatchingUp) return;
    const patienceMs = Math.min(SLOWDOWN_FACTOR * this.#flow.answerMs, this.#options.requestTimeoutMs);
    for (const connection of [...this.#connections]) {
      connection.tick(now, patienceMs);
      if (connection.isReady) this.#lastReadyAt = now;
      if (connection.isReady && connection.inFlight === 0) {
        if (now - connection.lastUsedAt >= this.#options.idleTimeoutMs) connection.retire();
      }
    }
    this.#countLost();
    if (this.#inFlight > this.#lost) this.#flow.checkProbe(now);
    else this.#flow.rest();
    if (now >= this.#nextDeadlineAt) this.#expireQueue(now);
    this.#replaceWorn(now);
    this.#dispatch();
    if (this.#connections.length === 0 && this.#queue.length === 0) this.#stopTicking();
  };

  #countLost(): void {
    this.#lost = 0;
    for (const connection of this.#connections) this.#lost += connection.countLost();
  }

  #startTicking(): void {
    if (this.#ticker !== undefined) return;
    this.#tickedAt = this.#options.clock();
    this.#ticker = setInterval(this.#tick, this.#options.tickMs);
  }

  #stopTicking(): void {
    clearInterval(this.#ticker);
    this.#ticker = undefined;
  }

  /** Opens the replacement first; the worn connection is retired once the new one is ready (`connectionReady`). */
  #replaceWorn(now: number): void {
    if (this.#closing !== undefined || this.#connections.some((connection) => connection.isConnecting)) return;
    if (this.#connections.some((connection) => connection.isReady && this.#isWorn(connection, now))) this.#open(now);
  }

  #isWorn(connection: Http2Connection, now: number): boolean {
    return connection.isNearlySpent || now - connection.createdAt >= this.#options.maxAgeMs;
  }

  #openIfNeeded(): void {
    if (this.#closing !== undefined) return;
    const now = this.#options.clock();
    let counted = 0;
    for (const connection of this.#connections) {
      if (connection.isRetired) continue;
      counted++;
      // One at a time: how much this connection will carry is not known yet, and it may be enough.
      if (connection.isConnecting) return;
      if (connection.pingSentAt > 0 && now - connection.pingSentAt < WARM_UP_MS) return;
      if (!connection.hasAnswered && now - connection.readyAt < WARM_UP_MS) return;
    }
    if (counted < this.#options.maxConnections) this.#open(now);
  }

  #open(now: number): void {
    if (now < this.#backoffUntil) return;
    const { maxConnections, maxConnectsPerMinute } = this.#options;
    const earned = ((now - this.#connectTokensAt) * maxConnectsPerMinute) / 60_000;
    this.#connectTokens = Math.min(maxConnections, this.#connectTokens + earned);
    this.#connectTokensAt = now;
    if (this.#connectTokens < 1) return;
    this.#connectTokens--;
    this.#counts.opened++;
    this.#traffic.connectionsOpened++;
    const socket = this.#openSocket();
    if (socket === undefined) return;
    this.#connections.push(
      new Http2Connection(this.#nextConnectionId++, socket, this, this.#options, this.#buffers, this.#options.clock),
    );
    this.#startTicking();
  }

  /** An unusable key, certificate or port throws here; for requests it is one more reason why there is no connection. */
  #openSocket(): Socket | Opening | undefined {
    const { host, port, tls, proxy } = this.#options;
    try {
      if (tls === false) return connectTcp({ host, port });
      const options: TlsOptions = { minVersion: 'TLSv1.2', ALPNProtocols: ['h2'], ...tls };
      return proxy === undefined ? connectTls({ host, port, ...options }) : openTunnel(proxy, { host, port }, options);
    } catch (error) {
      this.#lastError = error instanceof Error ? error : new Error(String(error));
      addOne(this.#endings, 'connect_failed');
      addOne(this.#traffic.closed, 'connect_failed');
      this.#backOff();
      return undefined;
    }
  }

  /** Counts a connection that never answered anything, once. */
  #noteFailure(connection: Http2Connection): void {
    if (this.#failed.has(connection)) return;
    this.#failed.add(connection);
    this.#backOff();
  }

  /** The pause has jitter over its upper half: never at once, never in step with others. */
  #backOff(): void {
    const { backoffMs, maxBackoffMs, clock, random } = this.#options;
    const pauseMs = Math.min(maxBackoffMs, backoffMs * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    this.#backoffUntil = clock() + pauseMs * (0.5 + random() / 2);
  }

  // ConnectionOwner

  connectionReady(connection: Http2Connection): void {
    const now = this.#options.clock();
    const worn = this.#connections.find((other) => other !== connection && other.isReady && this.#isWorn(other, now));
    worn?.retire();
    this.#traffic.now.connections++;
  }

  connectionToldToGo(): void {
    this.#traffic.goaways++;
  }

  connectionFreed(): void {
    if (this.#lost > 0) this.#countLost();
    this.#flow.adapt(this.#options.clock());
    this.#dispatch();
  }

  connectionRetired(connection: Http2Connection): void {
    // Otherwise a peer that says goodbye before its first answer would be called again at once, and for ever.
    if (!connection.hasAnswered && this.#closing === undefined) this.#noteFailure(connection);
    this.#dispatch();
  }

  connectionClosed(connection: Http2Connection, ending: ConnectionEnding): void {
    this.#connections = this.#connections.filter((other) => other !== connection);
    addOne(this.#endings, ending.cause);
    addOne(this.#traffic.closed, ending.cause);
    if (connection.readyAt >= 0) this.#traffic.now.connections--;
    if (ending.error !== undefined) this.#lastError = ending.error;
    if (!connection.hasAnswered && this.#closing === undefined) this.#noteFailure(connection);
    if (this.#connections.length === 0) this.#onAllClosed?.();
    this.#countLost();
    this.#dispatch();
  }

  exchangeReturned(exchange: Exchange): void {
    this.#inFlight--;
    this.#traffic.now.requests--;
    this.#flow.ended(exchange);
    if (this.#closing !== undefined) this.#settleNotProcessed(exchange, 'closed', { isFlushed: false });
    else this.#enqueue(exchange);
  }

  exchangeAnswered(exchange: Exchange, isBodyWhole: boolean, connection: Http2Connection): void {
    this.#flow.answered(exchange, this.#inFlight-- - this.#lost);
    this.#failures = 0;
    this.#counts.answered++;
    const { status, headers, body } = exchange;
    this.#traffic.now.requests--;
    this.#traffic.noteAnswer(status, connection.lastReadAt - exchange.since);
    exchange.resolve({ kind: 'response', status, headers, body, isBodyWhole, connection });
  }

  exchangeNotProcessed(exchange: Exchange, cause: NotProcessedCause, evidence: Evidence): void {
    this.#inFlight--;
    this.#traffic.now.requests--;
    if (cause === 'refused') this.#traffic.refusedStreams++;
    this.#flow.ended(exchange);
    const mayResend = cause === 'refused' || cause === 'goaway';
    if (!mayResend || this.#closing !== undefined || exchange.resends >= this.#options.maxResends) {
      this.#settleNotProcessed(exchange, cause, evidence);
      return;
    }
    exchange.resends++;
    exchange.unsent = undefined;
    exchange.lastWrite = 0;
    this.#counts.resent++;
    this.#traffic.resent++;
    // If the request is out of time, the next tick says so.
    this.#enqueue(exchange);
  }

  exchangeUnanswered(exchange: Exchange, cause: UnansweredCause, evidence: Evidence): void {
    this.#inFlight--;
    this.#traffic.now.requests--;
    addOne(this.#traffic.unanswered, cause);
    this.#flow.ended(exchange);
    this.#counts.unanswered++;
    exchange.resolve({ kind: 'unanswered', cause, evidence });
  }

  #settleNotProcessed(exchange: Exchange, cause: NotProcessedCause, evidence: Evidence): void {
    this.#counts.notProcessed++;
    addOne(this.#traffic.notProcessed, cause);
    exchange.resolve({ kind: 'notProcessed', cause, evidence });
  }
}

/** First in, first out, in constant time. */
class Queue<T> {
  #items: T[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head]!;
    this.#head++;
    if (this.#head === this.#items.length) {
      this.#items = [];
      this.#head = 0;
    } else if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}
