import { eventIntake, maxEventsOfGroup } from '../../db/record-events.ts';
import type { NewEvent } from '../../domain/event.ts';
import { followApp } from '../apps/follow-app.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError } from '../http/api-error.ts';
import type { AppEnv } from '../http/env.ts';
import { checkLine, parseLine, toNdjson } from '../http/ndjson.ts';
import type { NdjsonLine } from '../http/ndjson-lines.ts';
import { toApiError } from '../http/to-api-error.ts';
import { eventSchema, maxEventsOfBody, toNewEvent, typeRefused } from './schemas.ts';
import { Tally } from './tally.ts';

interface TakenLine {
  line: number;
  event: NewEvent;
}

/** Read and not yet recorded: what comes while a group is being recorded makes the next. */
const maxUnderWay = 3 * maxEventsOfGroup;

/**
 * Counts the events of `lines` and yields the answer as text: lines with a fault and progress as they come, the summary last. As many
 * lines as a body may have events count as a request more towards the limit of the key, and wait for it.
 * Never throws: an answer that has begun can only end.
 */
export async function* runEvents(
  { db, pool, log, stopping, now, importProgressIntervalMs = 10_000 }: ApiDependencies,
  { app: from, caller, awaitTurn }: Pick<AppEnv['Variables'], 'app' | 'caller' | 'awaitTurn'>,
  lines: AsyncIterable<NdjsonLine[]>,
): AsyncGenerator<string> {
  const appNow = followApp(db, from);
  const appId = from.id;
  const record = eventIntake(pool);
  const tally = new Tally(caller);
  const counts = { failed: 0, lines: 0 };
  const underWay: { events: number; recorded: Promise<string> }[] = [];
  let eventsUnderWay = 0;
  let progressAt = performance.now();

  function take(source: NdjsonLine): TakenLine | string {
    counts.lines++;
    try {
      const body = checkLine(parseLine(source), eventSchema);
      return { line: source.line, event: toNewEvent(appId, body, Number(now?.() ?? Date.now())) };
    } catch (cause) {
      return failure(source.line, toApiError(cause));
    }
  }

  function failure(line: number, { code, field = '', message }: ApiError): string {
    counts.failed++;
    return toNdjson({ line, code, field, message });
  }

  async function count(taken: TakenLine[]): Promise<string> {
    const refused = tally.add(await record(taken.map(({ event }) => event)));
    return refused.map((place) => failure(taken[place]!.line, typeRefused('type'))).join('');
  }

  function begin(taken: TakenLine[]): void {
    const recorded = count(taken);
    // It is awaited below; a rejection before that is not an unhandled one.
    recorded.catch(() => {});
    underWay.push({ events: taken.length, recorded });
    eventsUnderWay += taken.length;
  }

  async function endFirst(): Promise<string> {
    const { events, recorded } = underWay.shift()!;
    eventsUnderWay -= events;
    return recorded;
  }

  try {
    for await (const block of lines) {
      if (stopping?.aborted) throw new ApiError(503, 'internal', 'The service is stopping: send the lines again.');
      await appNow();
      let answer = '';
      let taken: TakenLine[] = [];
      for (const line of block) {
        const one = take(line);
        if (typeof one === 'string') answer += one;
        else taken.push(one);
        if (counts.lines % maxEventsOfBody === 0) await awaitTurn();
        if (taken.length >= maxEventsOfGroup) {
          begin(taken);
          taken = [];
        }
      }
      if (taken.length > 0) begin(taken);
      while (eventsUnderWay > maxUnderWay) answer += await endFirst();
      if (performance.now() - progressAt >= importProgressIntervalMs) {
        answer += toNdjson({ progress: { ...tally.told(), ...counts } });
        progressAt = performance.now();
      }
      if (answer !== '') yield answer;
    }
    while (underWay.length > 0) yield await endFirst();
    yield toNdjson({ ...tally.told(), ...counts, complete: true });
  } catch (cause) {
    const { code, message } = toApiError(cause);
    log.warn({ err: cause, appId, lines: counts.lines }, 'a stream of events ended early');
    // What was under way may still be recorded: it is counted before the last word.
    let failures = '';
    while (underWay.length > 0) failures += await endFirst().catch(() => '');
    yield failures + toNdjson({ ...tally.told(), ...counts, complete: false, code, message });
  }
}
