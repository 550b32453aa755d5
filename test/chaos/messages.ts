/**
 * Messages to one person each, posted through a whole run while everything is killed, frozen and restarted: lanes must keep the promises of
 * batches. A request whose answer was lost is made again under the same idempotency key, as a backend does.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Kysely, sql } from 'kysely';
import type { Database } from '../../db/schema.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import type { Stack } from '../../local/stack.ts';
import { apnsDeviceToken, type DeviceBehaviour, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { request } from './operator.ts';
import { came, patiently } from './patience.ts';
import { chaosLimits } from './settings.ts';

const devices = 120;
/** Each posts one message after the other. */
const callers = 4;
const everyMs = 250;
/** Messages looked at together. */
const looksAtOnce = 20;
/** Once nothing is disturbed any more. */
const endMs = 120_000;
/** The large audience's and the small sends' are below it. */
const firstToken = 3_000_000_000;
/** By device, over and over. */
const behaviours: DeviceBehaviour[] = [
  ...['accept', 'accept', 'unavailableOnce', 'accept', 'accept', 'accept'],
  ...['unavailableOnce', 'accept', 'accept', 'accept', 'accept', 'unregistered'],
] as DeviceBehaviour[];
/** Endings of a request in the ledger that tell what became of it. */
const clearEnding = /^(200$|4\d\d |503 (ServiceUnavailable|Shutdown)$|rst REFUSED_STREAM$|goaway$)/;

interface Posted {
  id: string;
  key: string;
  /** Of the device. */
  number: number;
  policy: InDoubtPolicy;
  isDeleted: boolean;
  hasCollapseId: boolean;
}

interface Entry {
  message_id: string;
  outcome: Outcome | null;
  reason: string | null;
  attempts: number;
  doubts: number;
}

export class ChaosMessages {
  readonly #stack: Stack;
  readonly #name: string;
  readonly #firstToken: number;
  readonly #posted: Posted[] = [];
  readonly #stop = new AbortController();
  #posting: Promise<unknown> | undefined;

  constructor(stack: Stack, seed: number, runNumber: number) {
    this.#stack = stack;
    this.#name = `person-${runNumber}-${seed}`;
    this.#firstToken = firstToken + runNumber * 1_000;
  }

  /** Rows for the import; no property selects them for the large send. */
  *rows(): Generator<object> {
    for (let n = 0; n < devices; n++) {
      const platform = n % 2 === 0 ? 'ios' : 'android';
      yield { external_id: `${this.#name}-${n}`, platform, device_token: this.#tokenOf(n) };
    }
  }

  start(): void {
    this.#posting = Promise.all(Array.from({ length: callers }, (_, caller) => this.#post(caller)));
    // Met where it is awaited.
    this.#posting.catch(() => {});
  }

  /**
   * Posts no more, waits for every outcome, and looks at each.
   * @param brokeConnections requests may have gone with a connection, unseen by the provider: they are in doubt as well
   * @returns how many there were, and every broken promise
   */
  async end(db: Kysely<Database>, brokeConnections: boolean): Promise<{ messages: number; problems: string[] }> {
    this.#stop.abort();
    await this.#posting;
    const { apiUrl, apiKey } = this.#stack;
    const isEnded = await came(async () => {
      const { rows } = await sql`select from message_entries where outcome is null limit 1`.execute(db);
      // The run took a credential away for a while.
      if (rows.length > 0) await request('POST', `${apiUrl}/v1/messages/resume`, apiKey!, {});
      return rows.length === 0;
    }, endMs);
    const problems = isEnded ? [] : await this.#stillWaiting(db);
    const entries = await this.#readEntries(db);
    const inFlight = await readLaneTakeovers(db);
    for (let at = 0; at < this.#posted.length; at += looksAtOnce) {
      const looks = this.#posted
        .slice(at, at + looksAtOnce)
        .map((message) => this.#problemsOf(message, { entries, inFlight, brokeConnections }));
      problems.push(...(await Promise.all(looks)).flat());
    }
    const largest = Math.max(0, ...inFlight.map((ids) => ids.size));
    if (largest > chaosLimits.inFlightOfBatch) problems.push(`a lane had ${largest} in flight when it was taken over`);
    problems.push(...(await this.#problemsOfBooks(db)));
    return { messages: this.#posted.length, problems };
  }

  async #post(caller: number): Promise<void> {
    for (let n = caller; !this.#stop.signal.aborted; n += callers) {
      const number = n % devices;
      const policy: InDoubtPolicy = n % 3 === 0 ? 'skip' : 'redeliver';
      const hasCollapseId = n % 5 === 0;
      const message = { title: 'To you', ...(hasCollapseId && { collapse_id: 'one' }) };
      const body = { to: { external_id: `${this.#name}-${number}` }, message, in_doubt_policy: policy };
      const key = `${this.#name}-${n}`;
      const { apiUrl, apiKey } = this.#stack;
      const answer = await request('POST', `${apiUrl}/v1/messages`, apiKey!, body, { 'idempotency-key': key });
      if (answer.status !== 202) throw new Error(`a message was refused: ${answer.status} ${await answer.text()}`);
      const { id } = (await answer.json()) as { id: string };
      const isDeleted = n % 29 === 0;
      if (isDeleted) await request('DELETE', `${apiUrl}/v1/messages/${id}`, apiKey!);
      this.#posted.push({ id, key, number, policy, isDeleted, hasCollapseId });
      await sleep(everyMs);
    }
  }

  async #stillWaiting(db: Kysely<Database>): Promise<string[]> {
    const { rows } = await sql`
      select l.provider, l.number, l.halt_reason, l.fence, l.horizon, l.settled, l.changes, l.seen_at, count(*) as entries, min(e.position) as first,
        min(e.reason) as reason, min(e.not_before) as not_before
      from message_entries e join lanes l on l.id = e.lane_id where e.outcome is null group by l.id
    `.execute(db);
    return rows.map((row) => `messages wait and do not end: ${JSON.stringify(row)}`);
  }

  async #readEntries(db: Kysely<Database>): Promise<Map<string, Entry[]>> {
    const { rows } = await sql<Entry>`
      select message_id, outcome, reason, attempts, doubts from message_entries
      where message_id = any(${this.#posted.map(({ id }) => id)}::uuid[])
    `.execute(db);
    return Map.groupBy(rows, ({ message_id }) => message_id);
  }

  async #problemsOf(
    message: Posted,
    {
      entries,
      inFlight,
      brokeConnections,
    }: { entries: Map<string, Entry[]>; inFlight: Set<string>[]; brokeConnections: boolean },
  ): Promise<string[]> {
    const { id, number, policy, isDeleted, hasCollapseId } = message;
    const control = this.#stack.simulator!.control;
    const behaviour = behaviours[number % behaviours.length]!;
    const own = entries.get(id) ?? [];
    // Nobody: the device was retired by an earlier message.
    if (own.length === 0) return behaviour === 'unregistered' ? [] : [`message ${id} has no entry`];
    const { outcome, reason, attempts, doubts } = own[0]!;
    const [got] = await patiently(() => control.lookup(id, [this.#tokenOf(number)]));
    const { accepted = 0 } = got ?? {};
    const { by_status_reason: endings } = await patiently(() => control.ledgerSummary(id));
    const isMarked = doubts > 0;
    const isUnclear = brokeConnections || Object.keys(endings).some((ending) => !clearEnding.test(ending));
    const wasInFlight = inFlight.some((ids) => ids.has(id));
    const broken: [boolean, string][] = [
      [own.length > 1, 'it has two entries for one device'],
      [outcome === null, 'it has no outcome'],
      [outcome === 'accepted' && accepted === 0, 'accepted in the books, and the provider never got it'],
      [accepted > 1 && !isMarked, `sent ${accepted} times, and no mark`],
      [accepted > 1 && policy === 'skip', `sent ${accepted} times under skip`],
      [accepted > 0 && outcome !== 'accepted' && !isMarked, `${outcome}, the provider took it, and no mark`],
      [outcome === 'unknown' && !isMarked, 'unknown, and not in doubt'],
      [outcome === 'cancelled' && !isDeleted && !(hasCollapseId && reason === 'replaced'), `cancelled: ${reason}`],
      [outcome === 'unregistered' && behaviour !== 'unregistered', 'unregistered, and its token is alive'],
      [outcome === 'skipped' && behaviour !== 'unregistered', 'skipped, and its device is there'],
      [outcome === 'rejected' || outcome === 'expired', `${outcome}: ${reason}`],
      [outcome === 'failed' && attempts < chaosLimits.maxAttempts, `failed after ${attempts} attempts`],
      [isMarked && !wasInFlight && !isUnclear, `in doubt, and nothing left it so: ${JSON.stringify(endings)}`],
    ];
    return broken.flatMap(([isBroken, what]) => (isBroken ? [`message ${id} to device ${number}: ${what}`] : []));
  }

  /** Each request was stored once, whatever was lost on the way; what entered is what ended. */
  async #problemsOfBooks(db: Kysely<Database>): Promise<string[]> {
    const problems: string[] = [];
    const { rows: keys } = await sql<{ idempotency_key: string; message_id: string }>`
      select idempotency_key, message_id from message_keys where idempotency_key like ${`${this.#name}-%`}
    `.execute(db);
    const idOf = new Map(keys.map(({ idempotency_key, message_id }) => [idempotency_key, message_id]));
    for (const { id, key } of this.#posted) {
      if (idOf.get(key) !== id) problems.push(`the message under key ${key} is ${idOf.get(key)}, the API said ${id}`);
    }
    if (keys.length !== this.#posted.length) problems.push(`${keys.length} keys for ${this.#posted.length} messages`);
    const { rows } = await sql<{ lane_id: number; counted: number; entered: number; entries: number }>`
      select lane_id, entered, counted, (select count(*) from message_entries e where e.lane_id = c.lane_id) as entries
      from (
        select lane_id, sum(devices) filter (where outcome = 'entered')::bigint as entered,
          sum(devices) filter (where outcome <> 'entered')::bigint as counted
        from message_counts where lane_id > 0 group by 1
      ) c
    `.execute(db);
    for (const { lane_id, counted, entered, entries } of rows) {
      if (counted !== entered || entries !== entered) {
        problems.push(`lane ${lane_id}: ${entered} entered, ${counted} ended, ${entries} entries`);
      }
    }
    return problems;
  }

  #tokenOf(n: number): string {
    const [number, behaviour] = [this.#firstToken + n, behaviours[n % behaviours.length]!];
    return n % 2 === 0 ? apnsDeviceToken(number, behaviour) : fcmRegistrationToken(number, behaviour);
  }
}

/** A witness inside the database: whenever a lane is claimed again, the messages in flight at that moment. Safe to repeat. */
export async function installLaneWitness(db: Kysely<Database>): Promise<void> {
  await sql`create schema if not exists chaos`.execute(db);
  await sql`
    create table if not exists chaos.lane_takeovers (lane_id integer not null, fence integer not null, message_ids uuid[] not null)
  `.execute(db);
  await sql`
    create or replace function chaos.note_lane_takeover() returns trigger language plpgsql as $$
    begin
      insert into chaos.lane_takeovers
      select new.id, new.fence, coalesce(array_agg(e.message_id), '{}') from public.message_entries e
      where e.lane_id = new.id and e.outcome is null
        and (e.dispatched or (e.position >= old.settled and e.position < old.horizon and e.not_before is null));
      return null;
    end
    $$
  `.execute(db);
  await sql`
    create or replace trigger note_lane_takeover after update of fence on lanes
    for each row when (new.fence > old.fence) execute function chaos.note_lane_takeover()
  `.execute(db);
}

async function readLaneTakeovers(db: Kysely<Database>): Promise<Set<string>[]> {
  const { rows } = await sql<{ message_ids: string[] }>`select message_ids from chaos.lane_takeovers`.execute(db);
  return rows.map((row) => new Set(row.message_ids));
}
