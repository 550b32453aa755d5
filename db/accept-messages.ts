import type { ProviderName } from '../domain/device.ts';
import {
  type Addressed,
  expiresAfterSeconds,
  maxDevicesOfMessage,
  type NewDirectMessage,
  type SkippedRecipient,
} from '../domain/direct-message.ts';
import { inGroups } from '../domain/in-groups.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';

/** What became of a new message. Only the first is stored. */
export type AcceptedMessage =
  | ({ kind: 'accepted' } & Addressed)
  /** There was one under the same idempotency key. */
  | { kind: 'repeat'; id: string; requestHash: string }
  | { kind: 'tooManyDevices' };

/** Messages of one transaction: some ten milliseconds at most. */
const maxGroup = 200;

/**
 * Accepts a message: with its devices, a place in the lane of each, and a wake-up of these lanes, in one transaction. Messages that come
 * while others are being stored are stored together: a commit costs more than a message.
 */
export function messageIntake(pool: StatementClient): (message: NewDirectMessage) => Promise<AcceptedMessage> {
  return inGroups((messages) => acceptMessages(pool, messages), maxGroup);
}

/** The same for messages that come together. Answers for each, in order. */
export async function acceptMessages(pool: StatementClient, messages: NewDirectMessage[]): Promise<AcceptedMessage[]> {
  const addressed = await findDevicesOf(pool, messages);
  const isFit = addressed.map(({ devices }) => devices.length <= maxDevicesOfMessage);
  const stored = await storeMessages(
    pool,
    messages.map((message, i) => ({ message, ...addressed[i]! })).filter((_, i) => isFit[i]),
  );
  let at = 0;
  return messages.map((message, i): AcceptedMessage => {
    if (!isFit[i]) return { kind: 'tooManyDevices' };
    const row = stored[at++]!;
    if (row.is_new) return { kind: 'accepted', ...addressed[i]! };
    return { kind: 'repeat', id: row.message_id, requestHash: row.request_hash ?? '' };
  });
}

/** One live device more than a message may have shows that it has too many. */
const findRecipientsStatement: PreparedStatement = {
  name: 'find_recipients',
  text: `
    select said.ordinal::integer, d.id, d.external_id, d.provider, d.is_live
    from unnest($1::bigint[], $2::text[], $3::text[]) with ordinality as said (app_id, external_id, user_id, ordinal)
    cross join lateral (
      select id, external_id, provider, retired_at is null and device_token is not null as is_live from devices
        where app_id = said.app_id and external_id = said.external_id
      union all (
        select id, external_id, provider, true from devices
          where app_id = said.app_id and user_id = said.user_id and retired_at is null and device_token is not null
          order by id limit ${maxDevicesOfMessage + 1}
      ) union all (
        select id, external_id, provider, false from devices
          where app_id = said.app_id and user_id = said.user_id and retired_at is not null limit 1
      )
    ) d order by said.ordinal, d.id`,
};

async function findDevicesOf(pool: StatementClient, messages: NewDirectMessage[]): Promise<Addressed[]> {
  const recipients = messages.flatMap(({ appId, to }, i) => [
    ...[...new Set(to.externalIds)].map((externalId) => ({ i, appId, externalId })),
    ...[...new Set(to.userIds)].map((userId) => ({ i, appId, userId })),
  ]) as { i: number; appId: number; externalId?: string; userId?: string }[];
  const { rows } = await pool.query<{
    ordinal: number;
    id: number;
    external_id: string;
    provider: ProviderName;
    is_live: boolean;
  }>({
    ...findRecipientsStatement,
    values: [
      numberArray(recipients.map(({ appId }) => appId)),
      recipients.map(({ externalId }) => externalId ?? null),
      recipients.map(({ userId }) => userId ?? null),
    ],
  });
  const addressed = messages.map((): Addressed => ({ devices: [], skipped: [] }));
  const found = new Map<number, 'live' | 'gone'>();
  for (const { ordinal, id, external_id, provider, is_live } of rows) {
    if (is_live) {
      found.set(ordinal, 'live');
      addressed[recipients[ordinal - 1]!.i]!.devices.push({ deviceId: id, externalId: external_id, provider });
    } else if (!found.has(ordinal)) found.set(ordinal, 'gone');
  }
  recipients.forEach(({ i, externalId, userId }, at) => {
    const how = found.get(at + 1);
    if (how === 'live') return;
    const reason = how === 'gone' ? 'device_gone' : 'unknown_recipient';
    const recipient: SkippedRecipient = externalId === undefined ? { userId: userId!, reason } : { externalId, reason };
    addressed[i]!.skipped.push(recipient);
  });
  return addressed;
}

const acceptMessagesStatement: PreparedStatement = {
  name: 'accept_messages',
  text: `select message_id, request_hash, is_new
    from accept_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
};

async function storeMessages(
  pool: StatementClient,
  messages: (Addressed & { message: NewDirectMessage })[],
): Promise<{ message_id: string; request_hash: string | null; is_new: boolean }[]> {
  if (messages.length === 0) return [];
  const entries = messages.flatMap(({ devices }, i) => devices.map((device) => ({ ...device, of: i + 1 })));
  const each = messages.map((stored) => stored.message);
  const { rows } = await pool.query<{ message_id: string; request_hash: string | null; is_new: boolean }>({
    ...acceptMessagesStatement,
    values: [
      each.map(({ id }) => id),
      numberArray(each.map(({ appId }) => appId)),
      each.map(({ message }) => JSON.stringify(message)),
      messages.map(({ message: { to }, skipped }) => JSON.stringify({ ...to, skipped })),
      each.map(({ inDoubtPolicy }) => inDoubtPolicy),
      each.map(({ message }) => expiresAfterSeconds(message) ?? null),
      each.map(({ idempotency }) => idempotency?.key ?? null),
      each.map(({ idempotency }) => idempotency?.requestHash ?? null),
      messages.map(({ skipped }) => JSON.stringify(skipped)),
      numberArray(entries.map((entry) => entry.of)),
      numberArray(entries.map(({ deviceId }) => deviceId)),
      entries.map(({ provider }) => provider),
    ],
  });
  return rows;
}
