import type { AcceptedMessage } from '../../db/accept-messages.ts';
import type { DirectMessage } from '../../db/messages.ts';
import type { App } from '../../domain/app.ts';
import { maxDevicesOfMessage, type NewDirectMessage } from '../../domain/direct-message.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { type ApiError, invalidField } from '../http/api-error.ts';
import { hashOf, keyReused, withPolicy } from '../http/idempotency.ts';
import { toApiError } from '../http/to-api-error.ts';
import { checkPayload } from '../notifications/check-payload.ts';
import { toMessage } from '../notifications/message-schema.ts';
import { type NewMessageBody, toRecipients } from './schemas.ts';

/** @throws {ApiError} 422 payload_invalid where a provider would not take it: its devices are not known yet. */
export function toNewMessage(app: App, body: NewMessageBody, idempotencyKey: string | undefined): NewDirectMessage {
  const message = toMessage(body.message, app);
  checkPayload(message, {}, app);
  return {
    ...{ id: uuidV7(), appId: app.id, message, to: toRecipients(body.to) },
    inDoubtPolicy: body.in_doubt_policy ?? app.defaultInDoubtPolicy,
    unknownRecipient: body.unknown_recipient,
    idempotency:
      idempotencyKey === undefined ? undefined : { key: idempotencyKey, requestHash: hashOf(withPolicy(body)) },
  };
}

/** Why a message was not accepted; undefined: it was, by this request or an earlier one. */
export function refusalOf(
  { to, idempotency }: NewDirectMessage,
  answer: AcceptedMessage,
  keyField?: 'idempotency_key',
): ApiError | undefined {
  switch (answer.kind) {
    case 'accepted':
      return undefined;
    case 'repeat':
      return answer.requestHash === idempotency?.requestHash
        ? undefined
        : keyReused({ message_id: answer.id }, keyField);
    case 'tooManyDevices':
      return invalidField('to', `Has more than ${maxDevicesOfMessage} devices.`);
    case 'unknownRecipient': {
      if (to.externalId !== undefined) return invalidField('to.external_id', noDevice);
      if (to.userId !== undefined) return invalidField('to.user_id', noDeviceOfUser);
      if (to.externalIds) return invalidField(`to.external_ids[${answer.at}]`, noDevice);
      return invalidField(`to.user_ids[${answer.at}]`, noDeviceOfUser);
    }
    case 'failed':
      return toApiError(answer.error);
  }
}

const noDevice = 'There is no such device.';
const noDeviceOfUser = 'There is no device of this user.';

/** A message as it is at the moment at which it was accepted, without asking for it. */
export function justAccepted(
  { id, to, message, inDoubtPolicy }: NewDirectMessage,
  { createdAt, expiresAt, devices, skipped }: Extract<AcceptedMessage, { kind: 'accepted' }>,
): DirectMessage {
  return {
    ...{ id, to, message, inDoubtPolicy, createdAt, expiresAt, skipped },
    entries: devices.map(({ externalId, provider }) => ({
      ...{ externalId, provider, outcome: null, reason: null, httpStatus: null, providerMessageId: null, attempts: 0 },
      ...{ inDoubt: false, notBefore: null, finishedAt: null },
    })),
  };
}
