import { type Kysely, sql } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { Recipients, SkippedRecipient } from '../domain/direct-message.ts';
import { inGroups } from '../domain/in-groups.ts';
import type { Message } from '../domain/message.ts';
import type { InDoubtPolicy } from '../domain/notification-state.ts';
import type { Outcome } from '../domain/outcome.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';

/** A message to one person or a few, and what became of it so far. */
export interface DirectMessage {
  id: string;
  to: Recipients;
  message: Message;
  inDoubtPolicy: InDoubtPolicy;
  expiresAt: Date | null;
  createdAt: Date;
  /** One for each device that it goes to. */
  entries: MessageEntry[];
  skipped: SkippedRecipient[];
}

/** A message for one device. */
export interface MessageEntry {
  /** Null when the device was deleted since. */
  externalId: string | null;
  provider: ProviderName;
  /** Null: it has none yet. */
  outcome: Outcome | null;
  reason: string | null;
  httpStatus: number | null;
  providerMessageId: string | null;
  attempts: number;
  inDoubt: boolean;
  /** When the next attempt is; null: it was not deferred, or needs none. */
  notBefore: Date | null;
  finishedAt: Date | null;
}

/** Finds a message of the app. Those that are asked for while others are being read are read together. */
export type FindMessage = (appId: number, id: string) => Promise<DirectMessage | undefined>;

/** Messages of one statement. */
const maxGroup = 50;

export function messageReader(pool: StatementClient): FindMessage {
  const read = inGroups((asked: AskedMessage[]) => findEach(pool, asked), maxGroup);
  return (appId, id) => read({ appId, id });
}

interface AskedMessage {
  appId: number;
  id: string;
}

/** Row by row along the primary keys, each in the partition of its week. */
const findMessagesStatement: PreparedStatement = {
  name: 'find_messages',
  text: `
    select asked.ordinal::integer, m.id, m.recipients, m.message, m.in_doubt_policy, m.expires_at, m.created_at, (
      select coalesce(jsonb_agg(jsonb_build_object(
        'externalId', d.external_id, 'provider', l.provider, 'outcome', e.outcome, 'reason', e.reason, 'httpStatus', e.http_status,
        'providerMessageId', e.provider_message_id, 'attempts', e.attempts, 'inDoubt', e.doubts > 0,
        'notBefore', case when e.outcome is null and e.not_before > to_timestamp(0) then e.not_before end,
        'finishedAt', e.finished_at
      ) order by said.ordinal), '[]')
      from unnest(m.device_ids) with ordinality as said (device_id, ordinal)
      cross join lateral (
        select * from message_entries where device_id = said.device_id and message_id = m.id limit 1
      ) e
      join lanes l on l.id = e.lane_id
      left join devices d on d.id = said.device_id
    ) as entries
    from unnest($1::bigint[], $2::uuid[]) with ordinality as asked (app_id, id, ordinal)
    cross join lateral (select * from messages where id = asked.id and app_id = asked.app_id limit 1) m`,
};

interface MessageLine {
  ordinal: number;
  id: string;
  recipients: Recipients & { skipped: SkippedRecipient[] };
  message: Message;
  in_doubt_policy: InDoubtPolicy;
  expires_at: Date | null;
  created_at: Date;
  /** With dates as they come in JSON. */
  entries: (Omit<MessageEntry, 'notBefore' | 'finishedAt'> & { notBefore: string | null; finishedAt: string | null })[];
}

async function findEach(pool: StatementClient, asked: AskedMessage[]): Promise<(DirectMessage | undefined)[]> {
  const { rows } = await pool.query<MessageLine>({
    ...findMessagesStatement,
    values: [numberArray(asked.map(({ appId }) => appId)), asked.map(({ id }) => id)],
  });
  const found: (DirectMessage | undefined)[] = asked.map(() => undefined);
  for (const row of rows) found[row.ordinal - 1] = toDirectMessage(row);
  return found;
}

function toDirectMessage(row: MessageLine): DirectMessage {
  const { skipped, ...to } = row.recipients;
  return {
    ...{ id: row.id, to, skipped, message: row.message, inDoubtPolicy: row.in_doubt_policy },
    ...{ expiresAt: row.expires_at, createdAt: row.created_at },
    entries: row.entries.map(({ notBefore, finishedAt, ...entry }) => ({
      ...entry,
      notBefore: notBefore === null ? null : new Date(notBefore),
      finishedAt: finishedAt === null ? null : new Date(finishedAt),
    })),
  };
}

/** Whose messages are looked for. */
export type MessageSearch = { externalId: string } | { userId: string };

/**
 * Messages to the devices that the user or the external id has now, newest first: along the primary key of the entries, device by
 * device. `cursor` is the id of the last one of the page before.
 */
export async function listMessages(
  db: Kysely<Database>,
  pool: StatementClient,
  appId: number,
  search: MessageSearch,
  page: { since: Date | undefined; cursor: string | undefined; limit: number },
): Promise<DirectMessage[]> {
  const devices = db
    .selectFrom('devices')
    .select('id')
    .where('app_id', '=', appId)
    .where(
      'externalId' in search ? 'external_id' : 'user_id',
      '=',
      'externalId' in search ? search.externalId : search.userId,
    );
  const since = page.since && sql`and message_id >= uuid_v7_floor(greatest(${page.since}, to_timestamp(0)))`;
  const { rows } = await sql<{ id: string }>`
    select distinct e.message_id as id from (${devices}) as d cross join lateral (
      select message_id from message_entries
      where device_id = d.id and message_id < ${page.cursor ?? lastUuid} ${since ?? sql``}
      order by message_id desc limit ${page.limit}
    ) e order by 1 desc limit ${page.limit}
  `.execute(db);
  const messages = await findEach(
    pool,
    rows.map(({ id }) => ({ appId, id })),
  );
  return messages.filter((message) => message !== undefined);
}

const lastUuid = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

const findPendingStatement: PreparedStatement = {
  name: 'find_pending_messages',
  text: 'select id from find_pending_messages($1) as id',
};

/** Those of the messages that have a device without an outcome. */
export async function findPendingOfAllApps(pool: StatementClient, ids: string[]): Promise<Set<string>> {
  const { rows } = await pool.query<{ id: string }>({ ...findPendingStatement, values: [ids] });
  return new Set(rows.map(({ id }) => id));
}

/**
 * Ends what was not handed to a provider. Returns for how many devices; undefined: there is no such message. A repeat ends what came
 * back for another attempt since.
 */
export async function cancelMessage(db: Kysely<Database>, appId: number, id: string): Promise<number | undefined> {
  const { rows } = await sql<{ cancelled: number }>`
    select cancel_message(id, device_ids) as cancelled from messages where id = ${id} and app_id = ${appId}
  `.execute(db);
  return rows[0]?.cancelled;
}
