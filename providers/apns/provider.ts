import type { ApnsEnvironment } from '../../domain/device.ts';
import type { Logger } from '../../domain/logger.ts';
import { ProviderTraffic } from '../../domain/provider-traffic.ts';
import type { ProxyChoice } from '../../domain/proxy.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { within } from '../../domain/within.ts';
import type { Http2Request, Http2Response, Http2Result } from '../../http2/exchange.ts';
import type { HeaderTemplate } from '../../http2/header-template.ts';
import { Http2Pool } from '../../http2/pool.ts';
import { clockGap, type ProviderAnswer, readResponse } from '../answer.ts';
import { type Clock, systemClock } from '../clock.ts';
import { originOf, type PoolOptions, trust } from '../http2-options.ts';
import { expired, verdictOnCutAnswer, verdictOnUnanswered, verdictOnUnsent } from '../no-answer.ts';
import type { NotificationContent } from '../payload/content.ts';
import { PayloadError } from '../payload/payload-error.ts';
import type { DeviceAddress, PreparedMessage, PushProvider, UnregisteredVerdict, Verdict } from '../provider.ts';
import type { ProviderTokenStore } from '../provider-token-store.ts';
import { silentLogger, ThrottledLog } from '../throttled-log.ts';
import { UnknownAnswers } from '../unknown-answers.ts';
import { apnsIdSuffix } from './apns-id.ts';
import { type ApnsCertificate, fingerprintOfCertificate } from './certificate.ts';
import { type ApnsKey, fingerprintOfKey } from './key.ts';
import { apnsPushTypeRules, buildApnsContent } from './payload.ts';
import { PreparedApnsMessage } from './prepared-message.ts';
import { type ProviderToken, ProviderTokenSource } from './provider-token.ts';
import { type ApnsReading, type ApnsWaits, apnsVerdict, defaultApnsWaits, readApnsAnswer } from './reasons.ts';

const apnsUrls: Record<ApnsEnvironment, string> = {
  production: 'https://api.push.apple.com:443',
  sandbox: 'https://api.sandbox.push.apple.com:443',
};

export interface ApnsProviderOptions {
  credential: ApnsKey | ApnsCertificate;
  /** The app's bundle id; push types add their suffix. */
  apnsTopic: string;
  /** Default Apple's. */
  urls?: Partial<Record<ApnsEnvironment, string>>;
  /** The environment of devices that name none. Default production. */
  defaultEnvironment?: ApnsEnvironment;
  /** Shared by all workers; unused with a certificate. */
  providerTokenStore: ProviderTokenStore;
  /** PEM of certificate authorities trusted besides the public ones: a simulator's or a proxy's. */
  ca?: string;
  /** Default: no proxy. */
  proxyFor?: ProxyChoice;
  /** Further options of each host's pool. */
  pool?: PoolOptions;
  /** Time from the writing of a request to its answer. Default 15 000 ms. */
  requestDeadlineMs?: number;
  waits?: Partial<ApnsWaits>;
  clock?: Clock;
  random?: () => number;
  logger?: Logger;
  /** Default: for itself. */
  traffic?: ProviderTraffic | undefined;
}

/** The provider token that requests are written with; undefined with a certificate. */
interface TokenInUse {
  token: ProviderToken | undefined;
}

class ApnsRequest implements Http2Request {
  readonly path: string;
  readonly ownValues: readonly string[];
  readonly body: Buffer;
  /** The provider token that the request was last written with. */
  token: ProviderToken | undefined;
  readonly #prepared: PreparedApnsMessage;
  readonly #authority: string;
  readonly #inUse: TokenInUse;

  constructor(prepared: PreparedApnsMessage, device: DeviceAddress, authority: string, inUse: TokenInUse) {
    this.path = `/3/device/${device.deviceToken}`;
    this.ownValues = [prepared.apnsIdPrefix + apnsIdSuffix(device.deviceId)];
    this.body = prepared.body;
    this.token = undefined;
    this.#prepared = prepared;
    this.#authority = authority;
    this.#inUse = inUse;
  }

  /** Read when the request is written: a token refused meanwhile would spoil the connection for other requests. */
  get template(): HeaderTemplate {
    this.token = this.#inUse.token;
    return this.#prepared.template(this.#authority, this.token);
  }
}

/** One of Apple's hosts and the connections to it. */
interface Host {
  authority: string;
  pool: Http2Pool;
  /** Connections up to this id are older than `replacement`, and may go on refusing because of the token before it. */
  lastOldConnectionId: number;
  replacement: ProviderToken | undefined;
}

interface SentRequest {
  prepared: PreparedApnsMessage;
  request: ApnsRequest;
  host: Host;
  deadlineAt: number;
}

const accepted: Verdict = Object.freeze({ kind: 'accepted', httpStatus: 200 });
/** How often one request goes out again because of what its connection had seen: each connection of a pool may refuse it once. */
const maxResends = 6;
/** The same limit for a refusal that a new connection should have cured. */
const maxConnectionResends = 2;
/** A clock this far off explains a refused token better than a wrong key does. */
const clockFaultMs = 5 * 60_000;

export function createApnsProvider(options: ApnsProviderOptions): PushProvider {
  return new ApnsProvider(options);
}

class ApnsProvider implements PushProvider {
  readonly name = 'apns';
  readonly credential: string;
  readonly hosts: readonly string[];
  readonly #hostNames: Record<ApnsEnvironment, string>;
  readonly #options: ApnsProviderOptions;
  readonly #tokens: ProviderTokenSource | undefined;
  readonly #inUse: TokenInUse = { token: undefined };
  readonly #hosts = new Map<ApnsEnvironment, Host>();
  readonly #deadlineMs: number;
  readonly #waits: ApnsWaits;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #logger: Logger;
  readonly #traffic: ProviderTraffic;
  readonly #throttledLog: ThrottledLog;
  readonly #unknownAnswers: UnknownAnswers;
  #isClosed = false;

  constructor(options: ApnsProviderOptions) {
    this.#options = options;
    this.#deadlineMs = options.requestDeadlineMs ?? 15_000;
    this.#waits = { ...defaultApnsWaits, ...options.waits };
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#logger = options.logger ?? silentLogger;
    this.#traffic = options.traffic ?? new ProviderTraffic();
    this.#unknownAnswers = new UnknownAnswers('APNs', this.#logger);
    this.#throttledLog = new ThrottledLog(this.#logger, () => this.#clock.monotonicMs());
    const { credential, providerTokenStore: store } = options;
    this.credential = nameOf(credential);
    const hostName = (environment: ApnsEnvironment) => this.#url(environment).host;
    this.#hostNames = { production: hostName('production'), sandbox: hostName('sandbox') };
    this.hosts = [...new Set(Object.values(this.#hostNames))];
    if (credential.kind === 'key') {
      this.#tokens = new ProviderTokenSource({
        key: credential,
        store,
        clock: this.#clock,
        logger: this.#logger,
        traffic: this.#traffic,
      });
    }
  }

  usefulRequests(hostName: string): number {
    for (const { authority, pool } of this.#hosts.values()) if (authority === hostName) return pool.usefulRequests;
    return Number.POSITIVE_INFINITY;
  }

  prepare(content: NotificationContent, nowMs = () => this.#clock.now().getTime()): PreparedMessage {
    const built = buildApnsContent(content);
    if (this.#tokens === undefined && apnsPushTypeRules[built.pushType].needsTokenAuth) {
      throw new PayloadError(
        'push_type',
        `Push type ${built.pushType} needs an APNs key; a certificate cannot send it.`,
      );
    }
    return new PreparedApnsMessage(content, built, this.#options.apnsTopic, nowMs);
  }

  send(prepared: PreparedMessage, device: DeviceAddress): Promise<Verdict> {
    if (!(prepared instanceof PreparedApnsMessage)) throw new TypeError('the message was prepared by another provider');
    if (this.#isClosed) return Promise.resolve({ kind: 'unsent', reason: 'closed', afterMs: 1_000 });
    if (!isHex(device.deviceToken)) {
      return Promise.resolve(malformedToken);
    }
    const deadlineAt = this.#clock.monotonicMs() + this.#deadlineMs;
    const usable = this.#tokens?.current;
    if (this.#tokens !== undefined && usable === undefined) return this.#sendWithToken(prepared, device, deadlineAt);
    this.#inUse.token = usable;
    return this.#request(prepared, device, deadlineAt);
  }

  async #sendWithToken(prepared: PreparedApnsMessage, device: DeviceAddress, deadlineAt: number): Promise<Verdict> {
    const usable = await this.#await(this.#tokens!.get(), deadlineAt);
    if (usable === undefined) return noToken;
    this.#inUse.token = usable;
    return this.#request(prepared, device, deadlineAt);
  }

  #request(prepared: PreparedApnsMessage, device: DeviceAddress, deadlineAt: number): Promise<Verdict> {
    if (prepared.isExpired) return Promise.resolve(expired);
    const host = this.#host(this.#environmentOf(device));
    const request = new ApnsRequest(prepared, device, host.authority, this.#inUse);
    // Most requests end here. What `#judge` keeps while it waits would be much of what a request costs.
    return new Promise((resolve) => {
      host.pool.start(request, (result) => {
        if (result.kind === 'response' && result.status === 200) resolve(accepted);
        else resolve(this.#judge(result, { prepared, request, host, deadlineAt }));
      });
    });
  }

  /** An end that is no acceptance; the request may go out again. */
  async #judge(first: Http2Result, { prepared, request, host, deadlineAt }: SentRequest): Promise<Verdict> {
    let result = first;
    for (let resends = 0; ; resends++) {
      if (result.kind === 'notProcessed') return verdictOnUnsent(result);
      if (result.kind === 'unanswered') return verdictOnUnanswered(result);
      if (result.status === 200) return accepted;

      const { token } = request;
      const answer = readResponse(result, this.#clock.now());
      if (!result.isBodyWhole && result.status < 500) return verdictOnCutAnswer(result.status);
      const reading = readApnsAnswer(answer);
      this.#unknownAnswers.note(answer, reading);
      this.#act(reading, result, token);
      const verdict = apnsVerdict(answer, reading, this.#waits, this.#random);
      if (verdict?.kind === 'unregistered' && verdict.suspicion && prepared.isOtherTopic) {
        return { ...verdict, isOtherTopic: true };
      }
      if (verdict !== undefined) return this.#withClockInMind(verdict, answer, prepared.nowMs());

      // Refused because of the connection or the provider token: the same request goes out again on another connection.
      if (reading.reaction.kind === 'refresh' && !isOlderThanToken(result.connection.id, host, token)) {
        if (token === undefined) return this.#clockFault(answer, reading);
        const next = await this.#await(this.#replace(token), deadlineAt);
        if (next === undefined) return noToken;
        if (next === 'refused_too') return this.#clockFault(answer, reading);
        this.#inUse.token = next;
      }
      const limit = reading.reaction.kind === 'resend' ? maxConnectionResends : maxResends;
      if (resends >= limit || this.#clock.monotonicMs() >= deadlineAt) return refusedAgain(answer, reading);
      if (prepared.isExpired) return expired;
      result = await host.pool.send(request);
    }
  }

  probe(): Promise<Verdict> {
    const prepared = this.prepare({ notificationId: uuidV7(), message: { title: 'Probe' } });
    return this.send(prepared, { deviceId: 0, deviceToken: '0'.repeat(64), apnsEnvironment: null });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#hosts.values()].map(({ pool }) => pool.close()));
  }

  hostOf(device: Pick<DeviceAddress, 'apnsEnvironment'>): string {
    return this.#hostNames[this.#environmentOf(device)];
  }

  #environmentOf({ apnsEnvironment }: Pick<DeviceAddress, 'apnsEnvironment'>): ApnsEnvironment {
    return apnsEnvironment ?? this.#options.defaultEnvironment ?? 'production';
  }

  #url(environment: ApnsEnvironment): URL {
    return new URL(this.#options.urls?.[environment] ?? apnsUrls[environment]);
  }

  #host(environment: ApnsEnvironment): Host {
    const existing = this.#hosts.get(environment);
    if (existing !== undefined) return existing;
    const { credential, ca, pool, proxyFor } = this.#options;
    const url = this.#url(environment);
    const identity =
      credential.kind === 'certificate' ? { cert: credential.certificatePem, key: credential.privateKeyPem } : {};
    const host: Host = {
      authority: url.host,
      pool: new Http2Pool({
        requestTimeoutMs: this.#deadlineMs,
        traffic: this.#traffic,
        ...pool,
        ...originOf(url),
        tls: { ...trust(ca), ...identity },
        proxy: proxyFor?.(url),
      }),
      lastOldConnectionId: 0,
      replacement: undefined,
    };
    this.#hosts.set(environment, host);
    return host;
  }

  /** Another provider token than the one called expired, or `refused_too` when no better one can be had. */
  async #replace(refused: ProviderToken): Promise<ProviderToken | 'refused_too'> {
    const next = await this.#tokens!.replace(refused);
    if (next === undefined) return 'refused_too';
    for (const host of this.#hosts.values()) {
      if (host.replacement === next) continue;
      host.replacement = next;
      host.lastOldConnectionId = host.pool.stats().opened;
    }
    return next;
  }

  /** What an answer means for the connection and the provider token, apart from the device. */
  #act({ reason, reaction }: ApnsReading, response: Http2Response, token: ProviderToken | undefined): void {
    const isConnectionSpent =
      reaction.kind === 'resend' ||
      // A connection that has seen an expired token keeps refusing (jchambers/pushy).
      reaction.kind === 'refresh' ||
      ('retiresConnection' in reaction && reaction.retiresConnection);
    if (isConnectionSpent) response.connection.retire();
    if (reaction.kind === 'later' && reaction.keepsPreviousToken && token !== undefined) {
      this.#tokens?.keepPrevious(token);
      const message = 'APNs counted too many provider tokens: is the key used by another sender?';
      this.#throttledLog.say('error', { reason }, message);
    }
  }

  #withClockInMind(verdict: Verdict, answer: ProviderAnswer, nowMs: number): Verdict {
    if (verdict.kind === 'unregistered') return inOurTime(verdict, answer, nowMs);
    if (verdict.kind !== 'misconfigured' || verdict.reason !== 'InvalidProviderToken') return verdict;
    const gap = clockGap(answer.date, this.#clock.now());
    if (gap === undefined || Math.abs(gap.ms) < clockFaultMs) return verdict;
    return {
      ...verdict,
      fault: 'clock',
      detail: `APNs refused the provider token, and ${gap.text}. Set the clock right, then resume.`,
    };
  }

  #clockFault({ httpStatus, date }: ProviderAnswer, { reason }: ApnsReading): Verdict {
    const gap = clockGap(date, this.#clock.now());
    const measured = gap?.text ?? "the answer had no Date to compare this machine's clock with";
    const detail = `APNs calls a provider token expired that was just made: ${measured}. Set the clock right, then resume.`;
    return { kind: 'misconfigured', httpStatus, reason, fault: 'clock', detail };
  }

  async #await<T>(promise: Promise<T>, deadlineAt: number): Promise<T | undefined> {
    try {
      return await within(promise, deadlineAt - this.#clock.monotonicMs());
    } catch (error) {
      this.#throttledLog.say('warn', { err: error }, 'no APNs provider token: the store did not answer');
      return undefined;
    }
  }
}

/** Both clocks are a little off, and the answer's Date has whole seconds. */
const clockToleranceMs = 2_000;

/**
 * The instant of a 410 is by Apple's clock and is compared with registrations by ours (that of `expiresAt`). Where the clocks
 * differ, they still agree on how long ago it was.
 */
function inOurTime(verdict: UnregisteredVerdict, { date }: ProviderAnswer, nowMs: number): Verdict {
  if (verdict.invalidAt === undefined || date === undefined) return verdict;
  const aheadMs = nowMs - date.getTime();
  if (Math.abs(aheadMs) <= clockToleranceMs) return verdict;
  return { ...verdict, invalidAt: new Date(verdict.invalidAt.getTime() + aheadMs - clockToleranceMs) };
}

/** The token may be good, and the connection may still refuse it because of the token before it. */
function isOlderThanToken(connectionId: number, host: Host, token: ProviderToken | undefined): boolean {
  return token !== undefined && token === host.replacement && connectionId <= host.lastOldConnectionId;
}

const malformedToken: Verdict = Object.freeze({
  ...{ kind: 'rejected', httpStatus: null, reason: 'MalformedDeviceToken', isPayloadFault: false },
});
const noToken: Verdict = { kind: 'unsent', reason: 'no_provider_token', afterMs: 2_000 };

/** The verdict when new connections did not help. */
function refusedAgain({ httpStatus }: ProviderAnswer, { reason, reaction }: ApnsReading): Verdict {
  if (reaction.kind === 'resend' && reason === 'UnrelatedKeyIdInToken') {
    const detail =
      'APNs says on every new connection that the key id is unrelated to the one used before. Check the key id.';
    return { kind: 'misconfigured', httpStatus, reason, fault: 'credentials', detail };
  }
  return { kind: 'unsent', reason, afterMs: 1_000 };
}

/** Made of what is public, and enough of it to tell two credentials apart. */
function nameOf(credential: ApnsKey | ApnsCertificate): string {
  if (credential.kind === 'certificate') return `certificate ${fingerprintOfCertificate(credential).slice(0, 16)}`;
  return `key ${credential.teamId}/${credential.keyId} ${fingerprintOfKey(credential).slice(0, 16)}`;
}

/** The request's path is built from it, so it is checked on every send; a loop costs less than a pattern here. */
function isHex(deviceToken: string): boolean {
  for (let i = 0; i < deviceToken.length; i++) {
    const code = deviceToken.charCodeAt(i);
    if (!((code >= 48 && code <= 57) || (code >= 97 && code <= 102))) return false;
  }
  return deviceToken.length > 0;
}
