import type { Logger } from '../../domain/logger.ts';
import { ProviderTraffic } from '../../domain/provider-traffic.ts';
import type { ProxyChoice } from '../../domain/proxy.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { within } from '../../domain/within.ts';
import type { Http2Request, Http2Result } from '../../http2/exchange.ts';
import { HeaderTemplate } from '../../http2/header-template.ts';
import { Http2Pool } from '../../http2/pool.ts';
import { clockGap, type ProviderAnswer, readResponse } from '../answer.ts';
import { type Clock, systemClock } from '../clock.ts';
import { originOf, type PoolOptions, trust } from '../http2-options.ts';
import { expired, verdictOnCutAnswer, verdictOnUnanswered, verdictOnUnsent } from '../no-answer.ts';
import type { NotificationContent } from '../payload/content.ts';
import type { PayloadError } from '../payload/payload-error.ts';
import type { DeviceAddress, PreparedMessage, PushProvider, Verdict } from '../provider.ts';
import { silentLogger } from '../throttled-log.ts';
import { UnknownAnswers } from '../unknown-answers.ts';
import { type AccessToken, type AccessTokenResult, AccessTokenSource, maxRefusedInARow } from './access-token.ts';
import { defaultFcmWaits, type FcmReading, type FcmWaits, fcmVerdict, readFcmAnswer } from './errors.ts';
import { PreparedFcmMessage } from './prepared-message.ts';
import { fingerprintOfAccount, type ServiceAccount } from './service-account.ts';

const fcmUrl = 'https://fcm.googleapis.com';

export interface FcmProviderOptions {
  account: ServiceAccount;
  /** Default the service account's own project. */
  projectId?: string;
  /** Default Google's. */
  url?: string;
  /** Default the service account's `token_uri`, which `normaliseServiceAccount` has checked. */
  tokenUrl?: string;
  /** PEM of certificate authorities trusted besides the public ones: a simulator's or a proxy's. */
  ca?: string;
  /** Default: no proxy. */
  proxyFor?: ProxyChoice;
  /** Further options of the pool. Default 16 connections, as FCM allows about 100 streams on each. */
  pool?: PoolOptions;
  /** Time from the writing of a request to its answer. Default 15 000 ms; Google asks for 10 000 or more. */
  requestDeadlineMs?: number;
  waits?: Partial<FcmWaits>;
  clock?: Clock;
  logger?: Logger;
  /** Default: for itself. */
  traffic?: ProviderTraffic | undefined;
}

export function createFcmProvider(options: FcmProviderOptions): PushProvider {
  return new FcmProvider(options);
}

class FcmProvider implements PushProvider {
  readonly name = 'fcm';
  readonly credential: string;
  readonly hosts: readonly string[];
  readonly #tokens: AccessTokenSource;
  readonly #pool: Http2Pool;
  readonly #authority: string;
  readonly #project: string;
  readonly #path: string;
  readonly #deadlineMs: number;
  readonly #waits: FcmWaits;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #unknownAnswers: UnknownAnswers;
  #template: { token: AccessToken; template: HeaderTemplate } | undefined;
  #isClosed = false;

  constructor(options: FcmProviderOptions) {
    const { account, tokenUrl, ca, pool, proxyFor, traffic = new ProviderTraffic() } = options;
    this.#clock = options.clock ?? systemClock;
    this.#logger = options.logger ?? silentLogger;
    this.#unknownAnswers = new UnknownAnswers('FCM', this.#logger);
    this.#deadlineMs = options.requestDeadlineMs ?? 15_000;
    this.#waits = { ...defaultFcmWaits, ...options.waits };
    this.#tokens = new AccessTokenSource({
      account,
      clock: this.#clock,
      logger: this.#logger,
      traffic,
      ...(tokenUrl === undefined ? {} : { tokenUrl }),
      ...(ca === undefined ? {} : { ca }),
      ...(proxyFor === undefined ? {} : { proxyFor }),
    });
    const url = new URL(options.url ?? fcmUrl);
    this.#authority = url.host;
    this.credential = `account ${account.clientEmail} ${fingerprintOfAccount(account).slice(0, 16)}`;
    this.hosts = [url.host];
    this.#project = options.projectId ?? account.projectId;
    this.#path = `/v1/projects/${this.#project}/messages:send`;
    this.#pool = new Http2Pool({
      maxConnections: 16,
      requestTimeoutMs: this.#deadlineMs,
      traffic,
      ...pool,
      ...originOf(url),
      tls: trust(ca),
      proxy: proxyFor?.(url),
    });
  }

  usefulRequests(): number {
    return this.#pool.usefulRequests;
  }

  hostOf(): string {
    return this.#authority;
  }

  prepare(content: NotificationContent, nowMs = () => this.#clock.now().getTime()): PreparedMessage {
    return new PreparedFcmMessage(content, this.#project, nowMs);
  }

  send(prepared: PreparedMessage, device: DeviceAddress): Promise<Verdict> {
    if (!(prepared instanceof PreparedFcmMessage)) throw new TypeError('the message was prepared by another provider');
    if (this.#isClosed) return Promise.resolve({ kind: 'unsent', reason: 'closed', afterMs: 1_000 });
    const fault = device.platform && prepared.faults.get(device.platform);
    if (fault !== undefined) return Promise.resolve(partFault(fault));
    const message = { prepared, device, deadlineAt: this.#clock.monotonicMs() + this.#deadlineMs };
    const token = this.#tokens.current;
    return token === undefined ? this.#sendWithToken(message) : this.#request(message, token);
  }

  async #sendWithToken(message: FcmMessage): Promise<Verdict> {
    const result = await within(this.#tokens.get(), this.#deadlineMs);
    if (result === undefined) return noToken;
    return result.ok ? this.#request(message, result.token) : result.failure;
  }

  #request(message: FcmMessage, token: AccessToken, refusedTokens = 0): Promise<Verdict> {
    const { prepared, device } = message;
    if (prepared.isExpired) return Promise.resolve(expired);
    const request = new FcmRequest(prepared, device.deviceToken, this.#templateFor(token), this.#path);
    // Most requests end here. What `#judge` keeps while it waits would be much of what a request costs.
    return new Promise((resolve) => {
      this.#pool.start(request, (result) => {
        if (result.kind === 'response' && result.status === 200) {
          token.hasWorked = true;
          resolve(acceptedAs(result.body));
        } else resolve(this.#judge(result, message, token, refusedTokens));
      });
    });
  }

  /** An end that is no acceptance; the message may be sent again with another access token. */
  async #judge(result: Http2Result, message: FcmMessage, token: AccessToken, refusedBefore: number): Promise<Verdict> {
    if (result.kind === 'notProcessed') return verdictOnUnsent(result);
    if (result.kind === 'unanswered') return verdictOnUnanswered(result);
    if (!result.isBodyWhole && result.status < 500 && result.status !== 401) return verdictOnCutAnswer(result.status);
    const answer = readResponse(result, this.#clock.now());
    const reading = readFcmAnswer(answer);
    this.#unknownAnswers.note(answer, reading);
    const verdict = fcmVerdict(answer, reading, this.#waits, message.device.platform);
    if (verdict !== undefined) {
      token.hasWorked = true;
      return verdict;
    }

    // 401 for our own access token: one refresh, shared by all requests that were refused, then the same message again.
    const refusedTokens = refusedBefore + 1;
    if (refusedTokens > maxRefusedInARow) return this.#refusedToken(answer, reading);
    const next: AccessTokenResult | undefined | 'refused_too' = await within(
      this.#tokens.replace(token).then((other) => other ?? 'refused_too'),
      message.deadlineAt - this.#clock.monotonicMs(),
    );
    if (next === undefined) return noToken;
    if (next === 'refused_too') return this.#refusedToken(answer, reading);
    return next.ok ? this.#request(message, next.token, refusedTokens) : next.failure;
  }

  probe(): Promise<Verdict> {
    const content = { notificationId: uuidV7(), message: { title: 'Probe' } };
    const prepared = new PreparedFcmMessage(content, this.#project, () => this.#clock.now().getTime(), 'validate');
    return this.send(prepared, { deviceId: 0, deviceToken: 'probe', apnsEnvironment: null });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#pool.close();
    await this.#tokens.close();
  }

  /** The same object as long as the access token is the same: the connection keeps its encoded octets. */
  #templateFor(token: AccessToken): HeaderTemplate {
    if (this.#template?.token === token) return this.#template.template;
    const template = new HeaderTemplate({
      authority: this.#authority,
      fields: [
        { name: 'authorization', value: token.authorization },
        { name: 'content-type', value: 'application/json' },
      ],
    });
    this.#template = { token, template };
    return template;
  }

  #refusedToken({ httpStatus, date }: ProviderAnswer, { reason }: FcmReading): Verdict {
    const gap = clockGap(date, this.#clock.now());
    const hint = gap !== undefined && Math.abs(gap.ms) > 60_000 ? ` Also, ${gap.text}.` : '';
    const detail = `FCM refused an access token that Google had just given us. Check that the service account is enabled.${hint}`;
    return { kind: 'misconfigured', httpStatus, reason, fault: 'credentials', detail };
  }
}

/** One message to one device, on its way. */
interface FcmMessage {
  prepared: PreparedFcmMessage;
  device: DeviceAddress;
  deadlineAt: number;
}

/** The body is made when the request is written, not when it begins to wait for a stream: its time to live is what is left then. */
class FcmRequest implements Http2Request {
  readonly #prepared: PreparedFcmMessage;
  readonly #registrationToken: string;
  readonly template: HeaderTemplate;
  readonly path: string;

  constructor(prepared: PreparedFcmMessage, registrationToken: string, template: HeaderTemplate, path: string) {
    this.#prepared = prepared;
    this.#registrationToken = registrationToken;
    this.template = template;
    this.path = path;
  }

  get body(): Buffer {
    return this.#prepared.body(this.#registrationToken);
  }
}

/** The message was stored before these rules existed: FCM is not asked about it. */
function partFault({ field, message }: PayloadError): Verdict {
  const detail = `${field}: ${message}`;
  return {
    kind: 'rejected',
    httpStatus: null,
    reason: 'payload_invalid',
    detail,
    isPayloadFault: true,
    isOnePlatform: true,
  };
}

const noToken: Verdict = { kind: 'unsent', reason: 'no_access_token', afterMs: 2_000 };

const idMark = '/messages/';
const maxIdCharacters = 256;

/** `{"name": "projects/<project>/messages/<id>"}`. Found without parsing: every accepted message comes through here. */
function acceptedAs(body: Buffer): Verdict {
  const text = body.toString('latin1', 0, 1024);
  const mark = text.indexOf(idMark);
  const id = mark < 0 ? '' : text.slice(mark + idMark.length, text.indexOf('"', mark));
  // 200 counts as accepted whatever the body holds; an id that could not be stored counts as none.
  if (id === '' || id.length > maxIdCharacters || id.includes('\0')) return { kind: 'accepted', httpStatus: 200 };
  return { kind: 'accepted', httpStatus: 200, providerMessageId: id };
}
