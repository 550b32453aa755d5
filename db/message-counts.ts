import { type Kysely, sql } from 'kysely';
import type { ProviderName } from '../domain/device.ts';
import type { Totals } from '../domain/notification.ts';
import { emptyOutcomeCounts, type Outcome, sumOfOutcomes } from '../domain/outcome.ts';
import type { Database } from './schema.ts';

/** The books of one day's messages: `entered` = sum of `outcomes` + `pending`, at every moment. */
export interface MessageDay extends Totals {
  /** `YYYY-MM-DD`, UTC, by the message's id. */
  day: string;
  /** Null: recipients without a device, skipped as they were accepted. */
  provider: ProviderName | null;
  /** Devices, each counted once for each message. */
  entered: number;
  pending: number;
}

/** The books of the app's messages from `since` to `until`, both included; days without a message are left out. */
export async function listMessageDays(
  db: Kysely<Database>,
  appId: number,
  { since, until }: { since: string; until: string },
): Promise<MessageDay[]> {
  const { rows } = await sql<{
    day: string;
    provider: ProviderName | '';
    outcome: Outcome | 'entered';
    reason: string;
    devices: number;
    in_doubt: number;
  }>`
    select to_char(day, 'YYYY-MM-DD') as day, provider, outcome, reason, sum(devices)::bigint as devices, sum(in_doubt)::bigint as in_doubt
    from message_counts where app_id = ${appId} and day between ${since} and ${until}
    group by message_counts.day, provider, outcome, reason order by message_counts.day, provider, outcome, devices desc
  `.execute(db);
  const days = new Map<string, MessageDay>();
  for (const { day, provider, outcome, reason, devices, in_doubt } of rows) {
    const key = `${day} ${provider}`;
    const books = days.get(key) ?? {
      ...{ day, provider: provider || null, entered: 0, pending: 0 },
      ...{ outcomes: emptyOutcomeCounts(), reasons: {} as Totals['reasons'], inDoubt: 0 },
    };
    days.set(key, books);
    books.inDoubt += in_doubt;
    if (outcome === 'entered') books.entered += devices;
    else {
      books.outcomes[outcome] += devices;
      if (reason !== '') books.reasons[outcome] = { ...books.reasons[outcome], [reason]: devices };
    }
  }
  for (const books of days.values()) books.pending = books.entered - sumOfOutcomes(books.outcomes);
  return [...days.values()];
}

/** A lane as people see it. */
export interface LaneState {
  provider: ProviderName;
  /** From 0. */
  number: number;
  /** Devices without an outcome. */
  waiting: number;
  halt: { reason: string; detail: string; since: Date } | null;
}

/** The lanes of the app: none before its first message. */
export async function listLanes(db: Kysely<Database>, appId: number): Promise<LaneState[]> {
  const { rows } = await sql<{
    provider: ProviderName;
    number: number;
    waiting: number;
    halt_reason: string | null;
    halt_detail: string | null;
    halted_at: Date | null;
  }>`
    select l.provider, l.number, l.halt_reason, l.halt_detail, l.halted_at, coalesce(counted.waiting, 0)::bigint as waiting
    from lanes l left join (
      select lane_id, sum(case outcome when 'entered' then devices else -devices end) as waiting
      from message_counts where app_id = ${appId} group by lane_id
    ) counted on counted.lane_id = l.id
    where l.app_id = ${appId} order by l.provider, l.number
  `.execute(db);
  return rows.map(({ provider, number, waiting, halt_reason: reason, halt_detail: detail, halted_at: since }) => ({
    ...{ provider, number, waiting },
    halt: reason === null ? null : { reason, detail: detail!, since: since! },
  }));
}

/** Devices of a lane without an outcome. */
export async function countWaitingOfAnyApp(db: Kysely<Database>, laneId: number): Promise<number> {
  const { rows } = await sql<{ waiting: number }>`
    select coalesce(sum(case outcome when 'entered' then devices else -devices end), 0)::bigint as waiting
    from message_counts where lane_id = ${laneId} and app_id = (select app_id from lanes where id = ${laneId})
  `.execute(db);
  return rows[0]!.waiting;
}
