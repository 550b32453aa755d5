import type { NewEvent } from '../domain/event.ts';
import { inGroups } from '../domain/in-groups.ts';
import { numberArray, type PreparedStatement, type StatementClient } from './prepared-statement.ts';
import { isLostRace } from './transaction.ts';

/**
 * What became of an event. Unknown: the app has no such send, or the send no such device. Refused: its type would be one more of the
 * app's own than it may have.
 */
export type EventAnswer = 'unknown' | 'accepted' | 'repeated' | 'refused';

/** Events of one transaction: some twenty milliseconds. */
export const maxEventsOfGroup = 1_000;

/** The digits of `record_events`. */
const answers: EventAnswer[] = ['unknown', 'accepted', 'repeated', 'refused'];

/** Records the events of a request; those of requests that come meanwhile are recorded together, as with messages. */
export function eventIntake(pool: StatementClient): (events: NewEvent[]) => Promise<EventAnswer[]> {
  return inGroups(
    async (requests: NewEvent[][]) => {
      const answers = await recordEvents(pool, requests.flat());
      let end = 0;
      return requests.map(({ length }) => {
        end += length;
        return answers.slice(end - length, end);
      });
    },
    maxEventsOfGroup,
    ({ length }) => length,
  );
}

const recordEventsStatement: PreparedStatement = {
  name: 'record_events',
  text: 'select record_events($1, $2, $3, $4, $5, $6) as answers',
};

const maxAttempts = 3;

/**
 * Counts the events in one transaction, and answers for each, in order. A device is counted once for each send and type, whatever is
 * told again.
 * @internal
 */
export async function recordEvents(pool: StatementClient, events: NewEvent[]): Promise<EventAnswer[]> {
  const sends = new Map<string, { appId: number; sendId: string; at: number }>();
  const of = events.map(({ appId, sendId }) => {
    const key = `${appId} ${sendId}`;
    const send = sends.get(key) ?? { appId, sendId, at: sends.size + 1 };
    sends.set(key, send);
    return send.at;
  });
  const statement = {
    ...recordEventsStatement,
    values: [
      numberArray(Array.from(sends.values(), ({ appId }) => appId)),
      Array.from(sends.values(), ({ sendId }) => sendId),
      numberArray(of),
      events.map(({ device }) => device),
      events.map(({ type }) => type),
      numberArray(events.map(({ at }) => at)),
    ],
  };
  for (let attempt = 1; ; attempt++) {
    try {
      const { rows } = await pool.query<{ answers: string }>(statement);
      return Array.from(rows[0]!.answers, (digit) => answers[Number(digit)]!);
    } catch (error) {
      if (!isLostRace(error) || attempt >= maxAttempts) throw error;
    }
  }
}
