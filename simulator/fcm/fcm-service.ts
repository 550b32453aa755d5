/** The fake FCM HTTP v1 API. Checks every request as Firebase documents and treats each device as its token says. */
import { type ActionContext, applyActions, htmlPage } from '../actions.ts';
import { HttpDate } from '../clock.ts';
import {
  afterFirst,
  type DeviceBehaviour,
  type MarkedDeviceToken,
  readFcmRegistrationToken,
} from '../device-tokens.ts';
import type { Exchange } from '../exchange.ts';
import type { NotificationLedger } from '../ledger.ts';
import type { SimulatorState } from '../state.ts';
import { tokenAction } from '../token-actions.ts';
import { type FcmError, fcmErrorByName, fcmErrors, permissionDenied } from './errors.ts';
import type { FcmMessage } from './message.ts';
import { FcmMessages } from './message-cache.ts';

interface Delivery {
  exchange: Exchange;
  path: string;
  project: string;
  authorization: string | undefined;
  message: FcmMessage;
  notification: NotificationLedger;
  receivedBefore: number;
}

const pathShape = /^\/v1\/projects\/([^/]+)\/messages:send$/;

export class FcmService {
  readonly #state: SimulatorState;
  readonly #date: HttpDate;
  readonly #messages = new FcmMessages();
  #lastPath = '';
  #lastProject = '';
  #messageNumber = 0;

  constructor(state: SimulatorState) {
    this.#state = state;
    this.#date = new HttpDate(state.clock);
  }

  handle(exchange: Exchange): void {
    const { ledger, log, rules, clock } = this.#state;
    let path = '';
    let authorization: string | undefined;
    for (let i = 0; i < exchange.headers.length; i += 2) {
      if (exchange.headers[i] === ':path') path = exchange.headers[i + 1]!;
      else if (exchange.headers[i] === 'authorization') authorization = exchange.headers[i + 1];
    }
    const project = this.#projectOf(path);
    const message = this.#messages.read(exchange.body);
    const notification = ledger.notification(message.notificationId ?? '');
    const nowMs = clock.now();
    const receivedBefore = ledger.receive(notification, message.registrationToken, 'fcm', nowMs);
    if (log.capacity > 0) {
      log.add({
        provider: 'fcm',
        listener: 'fcm',
        receivedAtMs: nowMs,
        connection: exchange.connection.id,
        streamId: exchange.streamId,
        method: exchange.method,
        path,
        headers: exchange.headers,
        deviceToken: message.registrationToken,
        notificationId: notification.notificationId,
        notificationKey: notification.key,
        body: exchange.body,
        bodyBytes: exchange.bodyBytes,
      });
    }
    const delivery: Delivery = { exchange, path, project, authorization, message, notification, receivedBefore };
    if (rules.isEmpty) this.#proceed(delivery);
    else this.#applyRules(delivery);
  }

  #projectOf(path: string): string {
    if (path !== this.#lastPath) {
      this.#lastProject = pathShape.exec(path)?.[1] ?? '';
      this.#lastPath = path;
    }
    return this.#lastProject;
  }

  #applyRules(delivery: Delivery): void {
    const { exchange, message, notification, project } = delivery;
    const actions = this.#state.rules.apply({
      provider: 'fcm',
      app: project,
      deviceToken: message.registrationToken,
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
      errorAnswer: (status, reason) => {
        const body = status < 300 ? this.#successBody(delivery) : fcmErrorByName(status, reason).body;
        return { headers: this.#headers(), body };
      },
      proceed,
    };
  }

  #proceed(delivery: Delivery): void {
    const { exchange, project, message, receivedBefore } = delivery;
    if (project === '' || exchange.method !== 'POST') {
      this.#countEnding(delivery, '404 html');
      exchange.respond(404, ['content-type', 'text/html; charset=UTF-8', 'date', this.#date.text()], htmlPage(404));
      return;
    }
    const error =
      this.#authorize(delivery) ??
      message.error ??
      (this.#state.quota.take(project) ? undefined : fcmErrors.projectQuota);
    if (error !== undefined) {
      this.#refuse(delivery, error);
      return;
    }
    const device = readFcmRegistrationToken(message.registrationToken);
    if (device === undefined || device.behaviour === 'accept') this.#succeed(delivery);
    else this.#behave(delivery, device, receivedBefore > 0 ? afterFirst(device.behaviour) : device.behaviour);
  }

  #authorize({ authorization, project }: Delivery): FcmError | undefined {
    if (authorization === undefined || !/^Bearer ./i.test(authorization)) return fcmErrors.missingCredential;
    if (!this.#state.accessTokens.isValid(authorization.slice(7))) return fcmErrors.invalidCredential;
    return this.#state.fcmProjects.has(project) ? undefined : permissionDenied(project);
  }

  #behave(delivery: Delivery, device: MarkedDeviceToken, behaviour: DeviceBehaviour | undefined): void {
    const { exchange, receivedBefore } = delivery;
    switch (behaviour) {
      case 'unregistered':
      case 'expiredToken':
        this.#refuse(delivery, fcmErrors.unregistered);
        break;
      case 'badToken':
        this.#refuse(delivery, fcmErrors.invalidRegistrationToken);
        break;
      case 'wrongTopic':
      case 'senderMismatch':
        this.#refuse(delivery, fcmErrors.senderIdMismatch);
        break;
      case 'rateLimitedOnce':
        this.#refuse(delivery, fcmErrors.deviceQuota);
        break;
      case 'unavailableOnce':
      case 'alwaysUnavailable':
        this.#refuse(delivery, fcmErrors.unavailable);
        break;
      case 'internalErrorTwice':
        if (receivedBefore < 2) this.#refuse(delivery, fcmErrors.internal);
        else this.#succeed(delivery);
        break;
      default: {
        const action = tokenAction(behaviour, device);
        if (action === undefined) this.#succeed(delivery);
        else
          applyActions(
            [action],
            exchange,
            this.#contextOf(delivery, () => this.#succeed(delivery)),
          );
      }
    }
  }

  #succeed(delivery: Delivery): void {
    if (!delivery.message.isValidateOnly) this.#accept(delivery);
    this.#countEnding(delivery, '200');
    delivery.exchange.respond(200, this.#headers(), this.#successBody(delivery));
  }

  #successBody({ project, message }: Delivery): string {
    if (message.isValidateOnly) return `{\n  "name": "projects/${project}/messages/fake_message_id"\n}\n`;
    const number = ++this.#messageNumber;
    const id = `0:${this.#state.clock.now()}000%${number.toString(16).padStart(16, '0')}`;
    return `{\n  "name": "projects/${project}/messages/${id}"\n}\n`;
  }

  #refuse(delivery: Delivery, error: FcmError): void {
    this.#countEnding(delivery, `${error.status} ${error.name}`);
    const headers = this.#headers();
    if (error === fcmErrors.projectQuota) headers.push(...this.#state.quota.retryAfterHeaders());
    delivery.exchange.respond(error.status, headers, error.body);
  }

  #headers(): string[] {
    return ['content-type', 'application/json; charset=UTF-8', 'date', this.#date.text()];
  }

  #accept({ notification, message, exchange }: Delivery): void {
    if (exchange.take()) this.#state.ledger.accept(notification, message.registrationToken, 'fcm');
  }

  #countEnding(delivery: Delivery, ending: string): void {
    this.#state.ledger.countEnding(delivery.notification, ending);
  }
}
