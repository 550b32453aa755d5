/** Faults on demand: which requests they hit, and what happens to these. Set through the control API. */
import type { ProviderName } from '../domain/device.ts';
import type { ErrorCodeName } from './error-codes.ts';
import { hashText } from './random.ts';

/** All given conditions must hold. */
export interface RuleMatch {
  provider?: ProviderName;
  /** APNs topic or FCM project id. */
  app?: string;
  tokenPrefix?: string;
  /** A fixed share of all device tokens, 0 to 100, by hash: the same devices every time. */
  tokenHashPercent?: number;
  /** Notification id, in full. */
  notificationId?: string;
  /** Connection number, as in the ledger and `GET /connections`. */
  connection?: number;
  /** Only the n-th request (from 1) that meets the conditions above. */
  nth?: number;
  /** Every n-th of them. */
  every?: number;
  /** Only from the n-th of them (from 1) … */
  from?: number;
  /** … up to and including the n-th. */
  until?: number;
  /** 0 to 1, drawn from the seeded random numbers. */
  probability?: number;
}

/** In milliseconds. A number is fixed; the other forms are drawn for each request. */
export type Latency =
  | number
  | { distribution: 'uniform'; minMs: number; maxMs: number }
  | { distribution: 'logNormal'; p50Ms: number; p99Ms: number }
  | { distribution: 'pareto'; minMs: number; shape: number };

/** How the body of an answer is sent: in two DATA frames, byte by byte, cut in half, or never after the headers. */
export type BodyDelivery = 'whole' | 'split' | 'bytes' | 'truncated' | 'stalled';

/** `accept: true`: the provider takes the message first, and the sender is never told. */
export type Action =
  /** Waits, then goes on with the next rule and the ordinary answer. */
  | { type: 'delay'; latency: Latency }
  /** `reason` is APNs's reason or FCM's errorCode and makes the exact body; `body` replaces it. */
  | {
      type: 'respond';
      status: number;
      reason?: string;
      /** APNs 410. Milliseconds. */
      timestamp?: number;
      headers?: Record<string, string>;
      body?: string;
      /** A body of this many bytes of text. */
      bodyBytes?: number;
      delivery?: BodyDelivery;
      accept?: boolean;
    }
  /** An HTML page, as a front end before the provider would send. */
  | { type: 'html'; status: number; accept?: boolean }
  /** Never answered; the stream stays open. */
  | { type: 'stall'; accept?: boolean }
  | { type: 'rstStream'; code: ErrorCodeName | number; accept?: boolean }
  /**
   * GOAWAY on the request's connection. `this`: this request is still answered; `previous`: this and later requests are dropped
   * as never processed; `zero`: all open requests are.
   */
  | {
      type: 'goaway';
      last?: 'this' | 'previous' | 'zero' | number;
      code?: ErrorCodeName | number;
      /** Put into the JSON that APNs sends as debug data. */
      reason?: string;
      debugData?: string;
      twice?: boolean;
      /** Close once the remaining streams have ended. Default true. */
      closesWhenDone?: boolean;
    }
  /** TCP RST. */
  | { type: 'reset'; accept?: boolean }
  /** TCP FIN. */
  | { type: 'end'; accept?: boolean }
  /** The connection reads and answers nothing any more. */
  | { type: 'blackHole'; accept?: boolean }
  /** Changes MAX_CONCURRENT_STREAMS of this connection, then goes on. */
  | { type: 'maxConcurrentStreams'; limit: number };

export interface RuleInput {
  match?: RuleMatch;
  action: Action;
  /** How often the rule applies before it is spent; default: without end. */
  times?: number;
}

export interface RuleState extends RuleInput {
  id: number;
  /** Requests that met the first conditions. */
  seen: number;
  applied: number;
}

export interface RuleSubject {
  provider: ProviderName;
  app: string;
  deviceToken: string;
  notificationKey: string;
  connection: number;
}

export class Rules {
  #rules: RuleState[] = [];
  #nextId = 1;
  readonly #random: () => number;
  readonly #notificationKey: (notificationId: string) => string;

  constructor(random: () => number, notificationKey: (notificationId: string) => string) {
    this.#random = random;
    this.#notificationKey = notificationKey;
  }

  get isEmpty(): boolean {
    return this.#rules.length === 0;
  }

  add(input: RuleInput): RuleState {
    const rule: RuleState = { ...input, id: this.#nextId++, seen: 0, applied: 0 };
    this.#rules.push(rule);
    return rule;
  }

  list(): RuleState[] {
    return this.#rules;
  }

  /** Removes one rule, or all. */
  remove(id?: number): void {
    this.#rules = id === undefined ? [] : this.#rules.filter((rule) => rule.id !== id);
  }

  /** The rules that apply to a request, in the order they were added, up to the first that ends it. */
  apply(subject: RuleSubject): Action[] {
    const actions: Action[] = [];
    for (const rule of this.#rules) {
      if (!this.#applies(rule, subject)) continue;
      actions.push(rule.action);
      if (endsRequest(rule.action)) break;
    }
    return actions;
  }

  #applies(rule: RuleState, subject: RuleSubject): boolean {
    if (rule.times !== undefined && rule.applied >= rule.times) return false;
    const match = rule.match ?? {};
    if (match.provider !== undefined && match.provider !== subject.provider) return false;
    if (match.app !== undefined && match.app !== subject.app) return false;
    if (match.connection !== undefined && match.connection !== subject.connection) return false;
    if (match.tokenPrefix !== undefined && !subject.deviceToken.startsWith(match.tokenPrefix)) return false;
    if (match.notificationId !== undefined && this.#notificationKey(match.notificationId) !== subject.notificationKey) {
      return false;
    }
    if (match.tokenHashPercent !== undefined) {
      if ((hashText(subject.deviceToken) / 4_294_967_296) * 100 >= match.tokenHashPercent) return false;
    }
    const seen = ++rule.seen;
    if (match.nth !== undefined && seen !== match.nth) return false;
    if (match.every !== undefined && seen % match.every !== 0) return false;
    if (match.from !== undefined && seen < match.from) return false;
    if (match.until !== undefined && seen > match.until) return false;
    if (match.probability !== undefined && this.#random() >= match.probability) return false;
    rule.applied++;
    return true;
  }
}

/** False for actions after which the request goes its ordinary way. */
function endsRequest(action: Action): boolean {
  if (action.type === 'goaway') return action.last !== undefined && action.last !== 'this';
  return action.type !== 'delay' && action.type !== 'maxConcurrentStreams';
}

export function drawLatencyMs(latency: Latency, random: () => number): number {
  if (typeof latency === 'number') return latency;
  switch (latency.distribution) {
    case 'uniform':
      return latency.minMs + random() * (latency.maxMs - latency.minMs);
    case 'logNormal': {
      // The 99th percentile lies 2.326 standard deviations above the median.
      const sigma = Math.log(latency.p99Ms / latency.p50Ms) / 2.326;
      const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
      return latency.p50Ms * Math.exp(sigma * normal);
    }
    case 'pareto':
      return latency.minMs / (1 - random()) ** (1 / latency.shape);
  }
}
