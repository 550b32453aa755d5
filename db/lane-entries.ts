import { type Kysely, sql, type Transaction } from 'kysely';
import type { ApnsEnvironment, Platform } from '../domain/device.ts';
import type { Message } from '../domain/message.ts';
import type { InDoubtPolicy } from '../domain/notification-state.ts';
import type { Outcome } from '../domain/outcome.ts';
import type { Deferral } from './deferrals.ts';
import type { Retirement } from './devices.ts';
import { retirementsAsJson } from './devices.ts';
import { FencedError } from './fenced-error.ts';
import type { LaneClaim } from './lanes.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import type { Database } from './schema.ts';
import { type Reservation, toReservation } from './windows.ts';

/** What names an entry for good: a message goes to a device once. */
export interface EntryKey {
  messageId: string;
  deviceId: number;
}

/** An entry that waits for another attempt, or for an earlier message to its device. */
export interface DeferredEntry extends Deferral, EntryKey {
  position: number;
  collapseId: string | undefined;
}

/** An entry without an outcome, with all that sending it takes. */
export interface OpenEntry extends EntryKey {
  position: number;
  expiresAt: Date | null;
  attempts: number;
  excused: number;
  doubts: number;
  refusedAt: Date | null;
  /** Null: it was not deferred. */
  notBefore: Date | null;
  reason: string | null;
  /** Undefined: the device was deleted, retired or moved to another provider since the message was accepted. */
  address:
    | { deviceToken: string; apnsEnvironment: ApnsEnvironment | null; platform: Platform; isNew: boolean }
    | undefined;
  message: Message;
  inDoubtPolicy: InDoubtPolicy;
}

export interface EntryPage {
  entries: OpenEntry[];
  /** As of this page; a reservation says when it has grown. */
  changes: number;
  /** Where the next entry will stand. */
  nextPosition: number;
  readAtMs: number;
}

const readLaneStatement: PreparedStatement = { name: 'read_lane', text: 'select * from read_lane($1, $2, $3, $4)' };

type EntryRow = [
  changes: number,
  nextPosition: number,
  readAtMs: string,
  position: number | null,
  messageId: string,
  deviceId: number,
  expiresAt: Date | null,
  attempts: number,
  excused: number,
  doubts: number,
  refusedAt: Date | null,
  notBefore: Date | null,
  reason: string | null,
  deviceToken: string | null,
  apnsEnvironment: ApnsEnvironment | null,
  platform: Platform,
  message: Message,
  inDoubtPolicy: InDoubtPolicy,
];

/** By position: up to `limit` entries without an outcome from a position on, and those that stand at `positions`. */
export async function readEntries(
  client: StatementClient,
  laneId: number,
  { from, limit, positions }: { from: number; limit: number; positions: number[] },
): Promise<EntryPage> {
  const { rows } = await client.query<EntryRow>({
    ...readLaneStatement,
    rowMode: 'array',
    values: [laneId, from, limit, numberArray(positions)],
  });
  const [changes, nextPosition, readAtMs] = rows[0]!;
  return {
    entries: rows.filter(([, , , position]) => position !== null).map(toEntry),
    ...{ changes, nextPosition, readAtMs: Number(readAtMs) },
  };
}

function toEntry(row: EntryRow): OpenEntry {
  const [, , , position, messageId, deviceId, expiresAt, attempts, excused, doubts, refusedAt, notBefore, reason] = row;
  const [deviceToken, apnsEnvironment, platform, message, inDoubtPolicy] = row.slice(13) as [
    deviceToken: string | null,
    apnsEnvironment: ApnsEnvironment | null,
    platform: Platform,
    message: Message,
    inDoubtPolicy: InDoubtPolicy,
  ];
  const address = deviceToken === null ? undefined : { deviceToken, apnsEnvironment, platform, isNew: false };
  return {
    ...{ position: position!, messageId, deviceId, expiresAt, attempts, excused, doubts, refusedAt, notBefore, reason },
    ...{ address, message, inDoubtPolicy },
  };
}

/** Those below the horizon of a claim, by position. */
export async function listDeferredEntries(
  db: Kysely<Database>,
  { laneId, settled, horizon }: LaneClaim,
): Promise<DeferredEntry[]> {
  const { rows } = await sql<{
    position: number;
    message_id: string;
    device_id: number;
    not_before: Date;
    attempts: number;
    excused: number;
    doubts: number;
    refused_at: Date | null;
    reason: string | null;
    http_status: number | null;
    collapse_id: string | null;
  }>`
    select e.position, e.message_id, e.device_id, e.not_before, e.attempts, e.excused, e.doubts, e.refused_at, e.reason, e.http_status,
      (select m.message ->> 'collapseId' from messages m where m.id = e.message_id) as collapse_id
    from message_entries e
    where e.lane_id = ${laneId} and e.position >= ${settled} and e.position < ${horizon} and e.outcome is null
    order by e.position
  `.execute(db);
  return rows.map((row) => ({
    ...{ position: row.position, messageId: row.message_id, deviceId: row.device_id, notBefore: row.not_before },
    ...{ attempts: row.attempts, excused: row.excused, doubts: row.doubts, refusedAt: row.refused_at },
    ...{ reason: row.reason ?? '', httpStatus: row.http_status, collapseId: row.collapse_id ?? undefined },
  }));
}

export interface LaneWindow {
  /** As the entries were read. */
  changes: number;
  /** Entries below it have their outcome. */
  settled: number;
  /** Of fresh entries, ascending. */
  positions: number[];
  /** They come first in the window. */
  deferred: EntryKey[];
  hosts: string[];
  credential: string;
}

const reserveLaneWindowStatement: PreparedStatement = {
  name: 'reserve_lane_window',
  text: `select answer, granted, wait_ms, hosts
    from reserve_lane_window($1, $2, $3, $4, $5::bigint[], $6::uuid[], $7::bigint[], $8::text[], $9)`,
};

/** A window of a lane, reserved before it is dispatched; see `migrations/0012-lanes.ts`. */
export async function reserveLaneWindow(
  client: StatementClient,
  { laneId, fence }: LaneClaim,
  { changes, settled, positions, deferred, hosts, credential }: LaneWindow,
): Promise<Reservation> {
  const { rows } = await client.query({
    ...reserveLaneWindowStatement,
    values: [
      ...[laneId, fence, changes, settled, numberArray(positions)],
      ...[deferred.map(({ messageId }) => messageId), numberArray(deferred.map(({ deviceId }) => deviceId))],
      ...[hosts, credential],
    ],
  });
  return toReservation(rows[0]!);
}

/** How an entry ended, and what names it. */
export interface EndedEntry extends EntryKey {
  outcome: Outcome;
  httpStatus: number | null;
  attempts: number;
  inDoubt: boolean;
  reason: string | null;
  providerMessageId: string | undefined;
}

const recordEntriesStatement: PreparedStatement = {
  name: 'record_entries',
  text: 'select record_entries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) as is_done',
};

/**
 * Records outcomes under the lane's fence, and what comes along with them: all of it or nothing. The database refuses a second outcome.
 * @throws {FencedError}
 */
export async function recordEntries(
  client: StatementClient,
  claim: LaneClaim,
  ended: EndedEntry[],
  { deferrals = [], retirements = [] }: { deferrals?: (Deferral & EntryKey)[]; retirements?: Retirement[] } = {},
): Promise<void> {
  const { rows } = await client.query<{ is_done: boolean | null }>({
    ...recordEntriesStatement,
    values: [
      ...[claim.laneId, claim.fence],
      ended.map(({ messageId }) => messageId),
      numberArray(ended.map(({ deviceId }) => deviceId)),
      ended.map(({ outcome }) => outcome),
      ended.map(({ httpStatus }) => httpStatus),
      ended.map(({ attempts }) => attempts),
      ended.map(({ inDoubt }) => inDoubt),
      ended.map(({ reason }) => reason),
      ended.map(({ providerMessageId }) => providerMessageId ?? null),
      deferrals.length === 0 ? null : entryDeferralsAsJson(deferrals),
      retirements.length === 0 ? null : retirementsAsJson(retirements),
    ],
  });
  if (rows[0]!.is_done === null) throw new FencedError(claim);
}

function entryDeferralsAsJson(deferrals: (Deferral & EntryKey)[]): string {
  return JSON.stringify(
    deferrals.map(({ messageId, deviceId, notBefore, attempts, excused, doubts, refusedAt, reason, httpStatus }) => ({
      ...{ message_id: messageId, device_id: deviceId, not_before: notBefore, attempts, excused, doubts },
      ...{ refused_at: refusedAt, reason, http_status: httpStatus },
    })),
  );
}

/** Entries that wait without having been sent to. @throws {FencedError} */
export function deferEntries(client: StatementClient, claim: LaneClaim, deferrals: DeferredEntry[]): Promise<void> {
  return recordEntries(client, claim, [], { deferrals });
}

/** Whether this entry has its outcome. */
export async function isEntryEnded(db: Kysely<Database>, { messageId, deviceId }: EntryKey): Promise<boolean> {
  const { rows } = await sql<{ is_ended: boolean }>`
    select outcome is not null as is_ended from message_entries
    where device_id = ${deviceId} and message_id = ${messageId}
  `.execute(db);
  return rows[0]!.is_ended;
}

/** Gives back what was reserved and never dispatched; without effect when a later claim owns the lane. */
export async function returnReservedEntries(
  trx: Transaction<Database>,
  { laneId, fence }: LaneClaim,
  { position, deferred }: { position: number | undefined; deferred: EntryKey[] },
): Promise<void> {
  const { rows } = await sql`
    update lanes set horizon = coalesce(${position ?? null}, horizon) where id = ${laneId} and fence = ${fence} returning id
  `.execute(trx);
  if (rows.length === 0 || deferred.length === 0) return;
  await sql`
    update message_entries e set dispatched = false
    from unnest(${deferred.map(({ messageId }) => messageId)}::uuid[], ${deferred.map(({ deviceId }) => deviceId)}::bigint[])
      as d (message_id, device_id)
    where e.message_id = d.message_id and e.device_id = d.device_id and e.outcome is null
  `.execute(trx);
}
