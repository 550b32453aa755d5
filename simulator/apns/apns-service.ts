/** The fake APNs of one environment. Checks every request as Apple documents and treats each device as its token says. */

import { randomUUID } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { ApnsEnvironment } from '../../domain/device.ts';
import { prefixOfApnsId } from '../../providers/apns/apns-id.ts';
import { type ActionContext, type Answer, applyActions } from '../actions.ts';
import { HttpDate } from '../clock.ts';
import { afterFirst, isPlainApnsDeviceToken, type MarkedDeviceToken, readApnsDeviceToken } from '../device-tokens.ts';
import type { Exchange, ListenerName, SimulatorConnection } from '../exchange.ts';
import type { NotificationLedger } from '../ledger.ts';
import type { SimulatorState } from '../state.ts';
import { tokenAction } from '../token-actions.ts';
import { ApnsBodies, type ApnsBody } from './body.ts';
import { type ApnsClientCertificate, readClientCertificate } from './client-certificate.ts';
import { providerTokenOf } from './provider-token.ts';
import {
  type ApnsError,
  type ApnsRequest,
  checkBody,
  checkHeaders,
  checkRoute,
  readApnsRequest,
  uuid,
} from './request.ts';
import { tokenOnlyPushTypes } from './topics.ts';

/** What APNs keeps about one connection. */
interface ApnsSession {
  certificate: ApnsClientCertificate | undefined;
  /** The provider token in use, and when it last changed. */
  providerToken: string | undefined;
  providerTokenChangedAtMs: number;
  keyId: string | undefined;
  /** Set once a request succeeded: the stream limit was raised. */
  isWarm: boolean;
  /** Set after ExpiredProviderToken, when `stickyExpiredProviderToken` is on. */
  isWedged: boolean;
  isThrottled: boolean;
  badDeviceTokens: number;
}

/** One request with all that is known of it. */
interface Delivery {
  exchange: Exchange;
  request: ApnsRequest;
  body: ApnsBody;
  notification: NotificationLedger;
  /** How often this device had received this notification before. */
  receivedBefore: number;
}

const tokenUpdateIntervalMs = 20 * 60_000;

export class ApnsService {
  readonly environment: ApnsEnvironment;
  readonly listener: ListenerName;
  readonly #state: SimulatorState;
  readonly #bodies = new ApnsBodies();
  readonly #date: HttpDate;

  constructor(environment: ApnsEnvironment, state: SimulatorState) {
    this.environment = environment;
    this.listener = `apns-${environment}`;
    this.#state = state;
    this.#date = new HttpDate(state.clock);
  }

  openSession(connection: SimulatorConnection, socket: TLSSocket): void {
    const session: ApnsSession = {
      certificate: readClientCertificate(socket),
      providerToken: undefined,
      providerTokenChangedAtMs: Number.NEGATIVE_INFINITY,
      keyId: undefined,
      isWarm: false,
      isWedged: false,
      isThrottled: false,
      badDeviceTokens: 0,
    };
    connection.session = session;
    // Only token authentication starts with one stream.
    if (session.certificate !== undefined) this.#warmUp(connection, session);
  }

  handle(exchange: Exchange): void {
    const { ledger, log, rules, clock } = this.#state;
    const request = readApnsRequest(exchange);
    const body = this.#bodies.read(exchange.body);
    const notification = ledger.notification(body.notificationId ?? prefixOfApnsId(request.apnsId ?? '') ?? '');
    const nowMs = clock.now();
    const receivedBefore = ledger.receive(notification, request.deviceToken, 'apns', nowMs);
    if (log.capacity > 0) {
      log.add({
        provider: 'apns',
        listener: this.listener,
        receivedAtMs: nowMs,
        connection: exchange.connection.id,
        streamId: exchange.streamId,
        method: request.method,
        path: request.path,
        headers: exchange.headers,
        deviceToken: request.deviceToken,
        notificationId: notification.notificationId,
        notificationKey: notification.key,
        body: body.bytes,
        bodyBytes: exchange.bodyBytes,
      });
    }
    const delivery: Delivery = { exchange, request, body, notification, receivedBefore };
    if (rules.isEmpty) this.#proceed(delivery);
    else this.#applyRules(delivery);
  }

  #applyRules(delivery: Delivery): void {
    const { exchange, request, notification } = delivery;
    const actions = this.#state.rules.apply({
      provider: 'apns',
      app: request.apnsTopic ?? '',
      deviceToken: request.deviceToken,
      notificationKey: notification.key,
      connection: exchange.connection.id,
    });
    applyActions(
      actions,
      exchange,
      this.#contextOf(delivery, () => this.#proceed(delivery)),
    );
  }

  #contextOf(delivery: Delivery, proceed: () => void): ActionContext {
    return {
      random: this.#state.random,
      accept: () => this.#accept(delivery),
      countEnding: (ending) => this.#countEnding(delivery, ending),
      errorAnswer: (_status, reason, timestamp) => this.#answer(delivery.request, reason, timestamp),
      proceed,
    };
  }

  #proceed(delivery: Delivery): void {
    const { request, exchange, body } = delivery;
    const session = exchange.connection.session as ApnsSession;
    const error =
      checkRoute(request) ??
      this.#authorize(request, session) ??
      checkHeaders(request, session.certificate?.topics ?? this.#state.apnsTopics, session.certificate === undefined) ??
      checkBody(request, exchange.bodyBytes, body);
    if (error !== undefined) {
      this.#refuse(delivery, error);
      return;
    }
    if (isPlainApnsDeviceToken(request.deviceToken)) this.#succeed(delivery);
    else this.#behave(delivery);
  }

  #authorize(request: ApnsRequest, session: ApnsSession): ApnsError | undefined {
    if (session.certificate !== undefined) return this.#checkCertificate(request, session.certificate);
    if (session.isWedged) return { status: 403, reason: 'ExpiredProviderToken' };
    const check = this.#state.providerTokens.check(request.authorization, this.environment);
    if (!check.isValid) {
      if (check.reason === 'ExpiredProviderToken') session.isWedged = this.#state.settings.stickyExpiredProviderToken;
      return { status: 403, reason: check.reason };
    }
    if (session.keyId !== undefined && session.keyId !== check.key.keyId) {
      return { status: 403, reason: 'UnrelatedKeyIdInToken' };
    }
    session.keyId = check.key.keyId;
    const providerToken = providerTokenOf(request.authorization);
    if (session.providerToken === providerToken) return undefined;
    if (session.providerToken !== undefined) {
      const nowMs = this.#state.clock.now();
      if (nowMs - session.providerTokenChangedAtMs < tokenUpdateIntervalMs) {
        return { status: 429, reason: 'TooManyProviderTokenUpdates' };
      }
      session.providerTokenChangedAtMs = nowMs;
    }
    session.providerToken = providerToken;
    return undefined;
  }

  #checkCertificate(request: ApnsRequest, certificate: ApnsClientCertificate): ApnsError | undefined {
    if (certificate.notAfter.getTime() < this.#state.clock.now()) return { status: 403, reason: 'BadCertificate' };
    if (!certificate.environments.has(this.environment)) return { status: 403, reason: 'BadCertificateEnvironment' };
    if (tokenOnlyPushTypes.has(request.pushType ?? '')) return { status: 403, reason: 'Forbidden' };
    return undefined;
  }

  /** Does what the device token says. */
  #behave(delivery: Delivery): void {
    const { request, exchange, receivedBefore } = delivery;
    if (request.deviceToken.length % 2 === 1 || request.deviceToken.length < 16) {
      this.#refuse(delivery, { status: 400, reason: 'BadDeviceToken' });
      return;
    }
    const device = readApnsDeviceToken(request.deviceToken);
    if (device !== undefined && device.environment !== null && device.environment !== this.environment) {
      this.#refuse(delivery, { status: 400, reason: 'BadDeviceToken' });
      return;
    }
    const error = device === undefined ? undefined : this.#deviceError(device, receivedBefore);
    if (error !== undefined) {
      this.#refuse(delivery, error);
      return;
    }
    const behaviour = receivedBefore > 0 ? afterFirst(device?.behaviour) : device?.behaviour;
    const action = tokenAction(behaviour, device);
    if (action === undefined) this.#succeed(delivery);
    else
      applyActions(
        [action],
        exchange,
        this.#contextOf(delivery, () => this.#succeed(delivery)),
      );
  }

  #deviceError(device: MarkedDeviceToken, receivedBefore: number): ApnsError | undefined {
    switch (device.behaviour) {
      case 'unregistered':
      case 'expiredToken': {
        const timestamp = this.#state.clock.now() - (device.parameter ?? 0) * 1000;
        return {
          status: 410,
          reason: device.behaviour === 'unregistered' ? 'Unregistered' : 'ExpiredToken',
          timestamp,
        };
      }
      case 'badToken':
        return { status: 400, reason: 'BadDeviceToken' };
      case 'wrongTopic':
      case 'senderMismatch':
        return { status: 400, reason: 'DeviceTokenNotForTopic' };
      case 'rateLimitedOnce':
        return receivedBefore === 0 ? { status: 429, reason: 'TooManyRequests' } : undefined;
      case 'unavailableOnce':
        return receivedBefore === 0 ? { status: 503, reason: 'ServiceUnavailable' } : undefined;
      case 'internalErrorTwice':
        return receivedBefore < 2 ? { status: 500, reason: 'InternalServerError' } : undefined;
      case 'alwaysUnavailable':
        return { status: 503, reason: 'ServiceUnavailable' };
      default:
        return undefined;
    }
  }

  #succeed(delivery: Delivery): void {
    const { exchange, request } = delivery;
    this.#accept(delivery);
    this.#countEnding(delivery, '200');
    const headers = ['apns-id', request.apnsId ?? randomUUID()];
    if (this.environment === 'sandbox') headers.push('apns-unique-id', randomUUID());
    exchange.respond(200, headers);
    const session = exchange.connection.session as ApnsSession;
    if (!session.isWarm || session.isThrottled) this.#warmUp(exchange.connection, session);
  }

  #refuse(delivery: Delivery, error: ApnsError): void {
    const { exchange, request } = delivery;
    const { settings } = this.#state;
    this.#countEnding(delivery, `${error.status} ${error.reason}`);
    const answer = this.#answer(request, error.reason, error.timestamp);
    exchange.respond(error.status, answer.headers, answer.body);
    const session = exchange.connection.session as ApnsSession;
    if (error.status === 400 && settings.throttlesAfterError && session.isWarm && !session.isThrottled) {
      session.isThrottled = true;
      exchange.connection.setMaxConcurrentStreams(1);
    }
    if (error.reason === 'BadDeviceToken') {
      session.badDeviceTokens++;
      if (session.badDeviceTokens === settings.badDeviceTokenLimit) exchange.connection.goaway({});
    }
  }

  #warmUp(connection: SimulatorConnection, session: ApnsSession): void {
    const isRaise = session.isThrottled || this.#state.settings.apnsWarmUp;
    session.isWarm = true;
    session.isThrottled = false;
    if (isRaise) connection.setMaxConcurrentStreams(this.#state.settings.apnsMaxConcurrentStreams);
  }

  #accept({ notification, request, exchange }: Delivery): void {
    if (exchange.take()) this.#state.ledger.accept(notification, request.deviceToken, 'apns');
  }

  #countEnding(delivery: Delivery, ending: string): void {
    this.#state.ledger.countEnding(delivery.notification, ending);
  }

  #answer(request: ApnsRequest, reason: string | undefined, timestamp: number | undefined): Answer {
    const apnsId = request.apnsId !== undefined && uuid.test(request.apnsId) ? request.apnsId : randomUUID();
    const headers = ['apns-id', apnsId, 'date', this.#date.text()];
    if (reason === undefined) return { headers, body: '' };
    headers.push('content-type', 'application/json');
    return { headers, body: JSON.stringify(timestamp === undefined ? { reason } : { reason, timestamp }) };
  }
}
