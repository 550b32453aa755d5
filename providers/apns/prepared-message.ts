import { HeaderTemplate, type TemplateField } from '../../http2/header-template.ts';
import type { NotificationContent } from '../payload/content.ts';
import type { PreparedMessage } from '../provider.ts';
import { apnsIdPrefix } from './apns-id.ts';
import { type ApnsContent, apnsPushTypeRules } from './payload.ts';
import type { ProviderToken } from './provider-token.ts';

/** One notification, ready for APNs: one body for all devices, one header template for each host and provider token. */
export class PreparedApnsMessage implements PreparedMessage {
  readonly body: Buffer;
  readonly target: string;
  /** The app's own device tokens are registered for its bundle id, not for this topic. */
  readonly isOtherTopic: boolean;
  /** Followed by the device's own twelve digits. */
  readonly apnsIdPrefix: string;
  readonly #fields: readonly TemplateField[];
  readonly #templates = new Map<string, { token: ProviderToken | undefined; template: HeaderTemplate }>();

  readonly nowMs: () => number;
  readonly #expiresAtMs: number;

  constructor(content: NotificationContent, built: ApnsContent, apnsTopic: string, nowMs: () => number) {
    this.nowMs = nowMs;
    this.#expiresAtMs = content.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
    this.body = Buffer.from(JSON.stringify(built.payload));
    this.apnsIdPrefix = apnsIdPrefix(content.notificationId);
    const fields: Record<string, string> = {
      'apns-topic': apnsTopic + apnsPushTypeRules[built.pushType].topicSuffix,
      ...built.headers,
    };
    this.target = fields['apns-topic']!;
    this.isOtherTopic = this.target !== apnsTopic;
    this.#fields = Object.entries(fields).map(([name, value]) => ({ name, value }));
  }

  get isExpired(): boolean {
    return this.nowMs() >= this.#expiresAtMs;
  }

  /** The same object as long as the provider token is the same: the connection keeps its encoded octets. */
  template(authority: string, token: ProviderToken | undefined): HeaderTemplate {
    const cached = this.#templates.get(authority);
    if (cached !== undefined && cached.token === token) return cached.template;
    const authorization = token === undefined ? [] : [{ name: 'authorization', value: token.authorization }];
    const template = new HeaderTemplate({
      authority,
      fields: [...authorization, ...this.#fields],
      ownNames: ['apns-id'],
    });
    this.#templates.set(authority, { token, template });
    return template;
  }
}
