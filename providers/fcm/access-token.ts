import { createPrivateKey, type KeyObject } from 'node:crypto';
import { SignJWT } from 'jose';
import { Agent, type Dispatcher, request } from 'undici';
import type { JsonValue } from '../../domain/json.ts';
import type { Logger } from '../../domain/logger.ts';
import type { ProviderTraffic } from '../../domain/provider-traffic.ts';
import type { ProxyChoice } from '../../domain/proxy.ts';
import { connectThrough } from '../../http2/tunnel.ts';
import { clockGap, type ProviderAnswer, readAnswer, reasonWord } from '../answer.ts';
import type { Clock } from '../clock.ts';
import { trust } from '../http2-options.ts';
import type { MisconfiguredVerdict, UnsentVerdict } from '../provider.ts';
import type { ServiceAccount } from './service-account.ts';

/**
 * The OAuth2 access token of one service account (RFC 7523,
 * https://developers.google.com/identity/protocols/oauth2/service-account). One request at a time, however many senders ask;
 * renewed in the background while the current token still works.
 */
export interface AccessToken {
  /** The value of the `authorization` header. Compare by identity: one object for each token. */
  readonly authorization: string;
  /** On the monotonic clock. */
  readonly fetchedAtMs: number;
  readonly expiresAtMs: number;
  /** How many tokens in a row before this one FCM refused; a token that had worked until then counts as the first. */
  readonly refusedBefore: number;
  /** Set by the sender at the first answer that was not about the token. */
  hasWorked: boolean;
}

/** Why there is no token, as a verdict on a send: wait and try again, or an operator must act. */
export type AccessTokenFailure = UnsentVerdict | MisconfiguredVerdict;
export type AccessTokenResult = { ok: true; token: AccessToken } | { ok: false; failure: AccessTokenFailure };

const scope = 'https://www.googleapis.com/auth/firebase.messaging';
const assertionLifetimeSeconds = 3600;
/** Renewed when this much is left, or a third of its life if that is less. */
const earlyMs = 5 * 60_000;
/** Used when the answer names no lifetime. */
const assumedLifetimeSeconds = 300;
const requestTimeoutMs = 10_000;
const maxAnswerBytes = 64 * 1024;
/** Pause after a failure, doubled each time up to the longest. After the longest, a wrong credential is tried again. */
const firstPauseMs = 1_000;
const longestPauseMs = 30_000;
const faultPauseMs = 5_000;
/**
 * How many refused tokens in a row are replaced. One refusal proves nothing: the second token may have been fetched before Google
 * forgot the first, and have been forgotten with it.
 */
export const maxRefusedInARow = 2;
/** A clock this far off is what Google's "short-lived token" is about: it allows five minutes. */
const clockFaultMs = 60_000;

export interface AccessTokenSourceOptions {
  account: ServiceAccount;
  /** Token endpoint in place of the account's own: the simulator's, or a proxy's. */
  tokenUrl?: string;
  ca?: string;
  proxyFor?: ProxyChoice;
  clock: Clock;
  logger: Logger;
  traffic: Pick<ProviderTraffic, 'tokens'>;
}

export class AccessTokenSource {
  readonly #account: ServiceAccount;
  readonly #signingKey: KeyObject;
  readonly #url: string;
  readonly #agent: Agent;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #tokens: ProviderTraffic['tokens'];
  #current: AccessToken | undefined;
  #refresh: Promise<AccessTokenResult> | undefined;
  #closing: Promise<void> | undefined;
  #failures = 0;
  #lastFailure: AccessTokenFailure | undefined;
  /** No token is requested before this time, on the monotonic clock. */
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor({ account, tokenUrl, ca, proxyFor, clock, logger, traffic }: AccessTokenSourceOptions) {
    this.#account = account;
    this.#signingKey = createPrivateKey(account.privateKeyPem);
    this.#url = tokenUrl ?? account.tokenUri;
    const proxy = proxyFor?.(new URL(this.#url));
    this.#agent = new Agent({
      connections: 1,
      connect:
        proxy === undefined
          ? { ...trust(ca), timeout: requestTimeoutMs }
          : connectThrough(proxy, trust(ca), requestTimeoutMs),
    });
    this.#clock = clock;
    this.#logger = logger;
    this.#tokens = traffic.tokens;
  }

  /** The token if there is a valid one, at no cost; renews it in the background when it is about to expire. */
  get current(): AccessToken | undefined {
    const token = this.#current;
    if (token === undefined) return undefined;
    const nowMs = this.#clock.monotonicMs();
    const leftMs = token.expiresAtMs - nowMs;
    if (leftMs <= 0) return undefined;
    // A failure is kept for the send that finds no token; until then the current token works on.
    const isDue = leftMs <= Math.min(earlyMs, (token.expiresAtMs - token.fetchedAtMs) / 3);
    if (isDue && this.#refresh === undefined && nowMs >= this.#pausedUntilMs) void this.#renew(0);
    return token;
  }

  /** Never rejects. */
  get(): Promise<AccessTokenResult> {
    const token = this.current;
    return token === undefined ? this.#renew(0) : Promise.resolve({ ok: true, token });
  }

  /**
   * Another token than the one FCM refused: the one that another send has fetched already, or a new one, fetched once for all.
   * `undefined` when too many in a row were fresh, never worked and were refused: another would be no better.
   */
  async replace(refused: AccessToken): Promise<AccessTokenResult | undefined> {
    const token = this.#current;
    if (token !== undefined && token !== refused) return { ok: true, token };
    const refusedInARow = refused.hasWorked ? 1 : refused.refusedBefore + 1;
    if (refusedInARow > maxRefusedInARow) {
      // A send that is resumed after the fix starts with a new token.
      if (this.#clock.monotonicMs() - refused.fetchedAtMs < faultPauseMs) return undefined;
    }
    return await this.#renew(refusedInARow);
  }

  /** A refresh under way ends first. A repeat waits for the same end. */
  close(): Promise<void> {
    this.#closing ??= this.#agent.close();
    return this.#closing;
  }

  #renew(refusedBefore: number): Promise<AccessTokenResult> {
    if (this.#refresh !== undefined) return this.#refresh;
    const leftMs = this.#pausedUntilMs - this.#clock.monotonicMs();
    if (leftMs > 0 && this.#lastFailure !== undefined) {
      const failure = this.#lastFailure;
      const isWait = failure.kind === 'unsent';
      return Promise.resolve({ ok: false, failure: isWait ? { ...failure, afterMs: Math.ceil(leftMs) } : failure });
    }
    this.#refresh = this.#fetch(refusedBefore).finally(() => {
      this.#refresh = undefined;
    });
    return this.#refresh;
  }

  async #fetch(refusedBefore: number): Promise<AccessTokenResult> {
    const fetchedAtMs = this.#clock.monotonicMs();
    let answer: ProviderAnswer;
    try {
      answer = await this.#post(await this.#assertion());
    } catch (error) {
      this.#logger.warn({ err: error }, 'the OAuth token endpoint could not be reached');
      const code = error instanceof Error && 'code' in error ? ` ${error.code}` : '';
      return this.#fail(this.#unsent(`oauth_unreachable${code}`, undefined));
    }
    const text = answer.json?.access_token;
    if (answer.httpStatus !== 200 || typeof text !== 'string' || !/^[!-~]+$/.test(text)) {
      return this.#fail(this.#readFailure(answer));
    }
    const lifetimeSeconds = lifetimeOf(answer.json?.expires_in);
    const token: AccessToken = {
      authorization: `Bearer ${text}`,
      fetchedAtMs,
      expiresAtMs: fetchedAtMs + lifetimeSeconds * 1000,
      refusedBefore,
      hasWorked: false,
    };
    this.#current = token;
    this.#tokens.made += 1;
    this.#failures = 0;
    this.#lastFailure = undefined;
    this.#pausedUntilMs = Number.NEGATIVE_INFINITY;
    this.#logger.info({ clientEmail: this.#account.clientEmail, lifetimeSeconds }, 'OAuth access token fetched');
    return { ok: true, token };
  }

  async #post(assertion: string): Promise<ProviderAnswer> {
    const signal = AbortSignal.timeout(requestTimeoutMs);
    const { statusCode, headers, body } = await request(this.#url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
      body: new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion }).toString(),
      dispatcher: this.#agent,
      signal,
    });
    const raw = {
      httpStatus: statusCode,
      body: await readAtMost(body, maxAnswerBytes),
      retryAfter: single(headers['retry-after']),
      date: single(headers.date),
    };
    return readAnswer(raw, this.#clock.now());
  }

  async #assertion(): Promise<string> {
    const { clientEmail, privateKeyId, tokenUri } = this.#account;
    const iat = Math.floor(this.#clock.now().getTime() / 1000);
    return await new SignJWT({ scope })
      .setProtectedHeader({ alg: 'RS256', typ: 'JWT', ...(privateKeyId === undefined ? {} : { kid: privateKeyId }) })
      .setIssuer(clientEmail)
      .setAudience(tokenUri)
      .setIssuedAt(iat)
      .setExpirationTime(iat + assertionLifetimeSeconds)
      .sign(this.#signingKey);
  }

  #fail(failure: AccessTokenFailure): AccessTokenResult {
    this.#failures++;
    this.#tokens.failed += 1;
    this.#lastFailure = failure;
    const pauseMs = failure.kind === 'unsent' ? failure.afterMs : faultPauseMs;
    this.#pausedUntilMs = this.#clock.monotonicMs() + pauseMs;
    const level = failure.kind === 'unsent' ? 'warn' : 'error';
    this.#logger[level]({ reason: failure.reason, clientEmail: this.#account.clientEmail }, 'no OAuth access token');
    return { ok: false, failure };
  }

  /** RFC 6749 §5.2 says 400 and a code; any other failure is the network's or the front end's. */
  #readFailure(answer: ProviderAnswer): AccessTokenFailure {
    const { httpStatus } = answer;
    const code = reasonWord(answer.json?.error);
    const isTransient = httpStatus === 200 || httpStatus === 408 || httpStatus === 429 || httpStatus >= 500;
    if (isTransient) return this.#unsent(`oauth_${code ?? `http_${httpStatus}`}`, answer.retryAfterMs);
    const reason = code ?? `oauth_http_${httpStatus}`;
    const description = reasonWord(answer.json?.error_description);
    const said = description === undefined ? '' : ` (${description})`;
    const gap = clockGap(answer.date, this.#clock.now());
    const isAboutTime = description !== undefined && /iat|short-lived|timeframe|expired/i.test(description);
    if (code === 'invalid_grant' && (isAboutTime || (gap !== undefined && Math.abs(gap.ms) > clockFaultMs))) {
      const isClock = gap === undefined || Math.abs(gap.ms) > clockFaultMs;
      const measured = gap?.text ?? "the answer had no Date to compare this machine's clock with";
      if (isClock) {
        const detail = `Google refused our signed request for an access token${said}: ${measured}. Set the clock right, then resume.`;
        return { kind: 'misconfigured', httpStatus, reason, fault: 'clock', detail };
      }
    }
    const detail = `Google gave no access token${said}. Check that the service account exists, is enabled, and that its key was not deleted.`;
    return { kind: 'misconfigured', httpStatus, reason, fault: 'credentials', detail };
  }

  #unsent(reason: string, retryAfterMs: number | undefined): UnsentVerdict {
    const growing = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(this.#failures, 10));
    return { kind: 'unsent', reason, afterMs: Math.max(retryAfterMs ?? growing, 100) };
  }
}

function lifetimeOf(expiresIn: JsonValue | undefined): number {
  const seconds = typeof expiresIn === 'string' ? Number(expiresIn) : expiresIn;
  return typeof seconds === 'number' && seconds > 0 && seconds <= 86_400 ? seconds : assumedLifetimeSeconds;
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

async function readAtMost(body: Dispatcher.ResponseData['body'], maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) break;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
