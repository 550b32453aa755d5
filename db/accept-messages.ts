import type { ProviderName } from '../domain/device.ts';
import {
  type Addressed,
  expiresAfterSeconds,
  maxDevicesOfMessage,
  type NewDirectMessage,
  type SkippedRecipient,
} from '../domain/direct-message.ts';
import { inGroups } from '../domain/in-groups.ts';
import { databaseFault } from './database-error.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import { isLostRace } from './transaction.ts';

/** What became of a new message. Only an accepted one is stored. */
export type AcceptedMessage =
  | ({ kind: 'accepted'; createdAt: Date; expiresAt: Date | null } & Addressed)
  /** There was one under the same idempotency key. */
  | { kind: 'repeat'; id: string; requestHash: string }
  | { kind: 'tooManyDevices' }
  /** `at`: the place of the recipient in its list, from 0. */
  | { kind: 'unknownRecipient'; at: number }
  /** PostgreSQL refused this one, though it passed every check. */
  | { kind: 'failed'; error: unknown };

/** Messages of one transaction: some ten milliseconds at most. */
export const maxMessagesOfGroup = 200;

/**
 * Accepts a message: with its devices, a place in the lane of each, and a wake-up of these lanes, in one transaction. Messages that come
 * while others are being stored are stored together: a commit costs more than a message.
 */
export function messageIntake(pool: StatementClient): (message: NewDirectMessage) => Promise<AcceptedMessage> {
  return inGroups((messages) => acceptMessages(pool, messages), maxMessagesOfGroup);
}

/**
 * The same for messages that come together. Answers for each, in order. One that PostgreSQL refuses is found by halving, so that it fails
 * alone.
 * @throws where the database is away
 */
export async function acceptMessages(pool: StatementClient, messages: NewDirectMessage[]): Promise<AcceptedMessage[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await acceptTogether(pool, messages);
    } catch (error) {
      if (isLostRace(error) && attempt < maxAttempts) continue;
      if (['away', 'cancelled', 'misconfigured'].includes(databaseFault(error))) throw error;
      if (messages.length === 1) return [{ kind: 'failed', error }];
      const middle = messages.length >> 1;
      const before = await acceptMessages(pool, messages.slice(0, middle));
      return [...before, ...(await acceptMessages(pool, messages.slice(middle)))];
    }
  }
}

const maxAttempts = 3;

type Refusal = Extract<AcceptedMessage, { kind: 'repeat' | 'tooManyDevices' | 'unknownRecipient' }>;

async function acceptTogether(pool: StatementClient, messages: NewDirectMessage[]): Promise<AcceptedMessage[]> {
  const addressed = await findDevicesOf(pool, messages);
  const refusals = await repeatsFirst(
    pool,
    messages,
    messages.map((message, i) => refusalOf(message, addressed[i]!)),
  );
  const stored = await storeMessages(
    pool,
    messages.map((message, i) => ({ message, ...addressed[i]! })).filter((_, i) => !refusals[i]),
  );
  let at = 0;
  return messages.map(({ message }, i): AcceptedMessage => {
    const refusal = refusals[i];
    if (refusal) return refusal;
    const { is_new, message_id: id, request_hash, accepted_at: createdAt } = stored[at++]!;
    if (!is_new) return { kind: 'repeat', id, requestHash: request_hash ?? '' };
    const seconds = expiresAfterSeconds(message);
    const expiresAt = seconds === undefined ? null : new Date(createdAt.getTime() + seconds * 1000);
    return { kind: 'accepted', createdAt, expiresAt, ...addressed[i]! };
  });
}

function refusalOf({ to, unknownRecipient }: NewDirectMessage, addressed: Addressed): Refusal | undefined {
  if (addressed.devices.length > maxDevicesOfMessage) return { kind: 'tooManyDevices' };
  if (unknownRecipient !== 'error') return undefined;
  const unknown = addressed.skipped.find(({ reason }) => reason === 'unknown_recipient');
  if (!unknown) return undefined;
  const at = (to.externalIds ?? to.userIds ?? []).indexOf((unknown.externalId ?? unknown.userId)!);
  return { kind: 'unknownRecipient', at: Math.max(at, 0) };
}

const findMessageKeysStatement: PreparedStatement = {
  name: 'find_message_keys',
  text: `
    select said.ordinal::integer, k.message_id, k.request_hash
    from unnest($1::bigint[], $2::text[]) with ordinality as said (app_id, key, ordinal)
    join message_keys k on k.app_id = said.app_id and k.idempotency_key = said.key`,
};

/** A request that was taken once is the same request still, whatever devices its recipients have by now. */
async function repeatsFirst(
  pool: StatementClient,
  messages: NewDirectMessage[],
  refusals: (Refusal | undefined)[],
): Promise<(Refusal | undefined)[]> {
  const keyed = messages.flatMap(({ appId, idempotency }, i) =>
    refusals[i] && idempotency ? [{ i, appId, key: idempotency.key }] : [],
  );
  if (keyed.length === 0) return refusals;
  const { rows } = await pool.query<{ ordinal: number; message_id: string; request_hash: string }>({
    ...findMessageKeysStatement,
    values: [numberArray(keyed.map(({ appId }) => appId)), keyed.map(({ key }) => key)],
  });
  const answers = [...refusals];
  for (const { ordinal, message_id: id, request_hash: requestHash } of rows) {
    answers[keyed[ordinal - 1]!.i] = { kind: 'repeat', id, requestHash };
  }
  return answers;
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
          where app_id = said.app_id and user_id = said.user_id and (retired_at is not null or device_token is null) limit 1
      )
    ) d order by said.ordinal, d.id`,
};

async function findDevicesOf(pool: StatementClient, messages: NewDirectMessage[]): Promise<Addressed[]> {
  const recipients = messages.flatMap(({ appId, to }, i) => [
    ...withoutRepeats(to.externalId, to.externalIds).map((externalId) => ({ i, appId, externalId })),
    ...withoutRepeats(to.userId, to.userIds).map((userId) => ({ i, appId, userId })),
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

function withoutRepeats(one: string | undefined, several: string[] = []): string[] {
  return one === undefined ? [...new Set(several)] : [one];
}

/** `now()` is what the function stores as `created_at`. */
const acceptMessagesStatement: PreparedStatement = {
  name: 'accept_messages',
  text: `select message_id, request_hash, is_new, now() as accepted_at
    from accept_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
};

interface StoredMessage {
  message_id: string;
  request_hash: string | null;
  is_new: boolean;
  accepted_at: Date;
}

async function storeMessages(
  pool: StatementClient,
  messages: (Addressed & { message: NewDirectMessage })[],
): Promise<StoredMessage[]> {
  if (messages.length === 0) return [];
  const entries = messages.flatMap(({ devices }, i) => devices.map((device) => ({ ...device, of: i + 1 })));
  const each = messages.map((stored) => stored.message);
  const { rows } = await pool.query<StoredMessage>({
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
