import { acceptMessages, maxMessagesOfGroup } from '../../db/accept-messages.ts';
import type { App } from '../../domain/app.ts';
import type { NewDirectMessage } from '../../domain/direct-message.ts';
import { acceptedMessages } from '../../telemetry/http-metrics.ts';
import { followApp } from '../apps/follow-app.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError } from '../http/api-error.ts';
import { checkLine, parseLine, toNdjson } from '../http/ndjson.ts';
import type { NdjsonLine } from '../http/ndjson-lines.ts';
import { toApiError } from '../http/to-api-error.ts';
import { refusalOf, toNewMessage } from './new-message.ts';
import { fromSkipped, messageLineSchema } from './schemas.ts';

type TakenLine = { line: number; message: NewDirectMessage } | { line: number; error: ApiError };

/** A block of lines, or the end of them; `failure`: they ended early. */
type Block = { lines: NdjsonLine[] } | { lines: undefined; failure?: unknown };

/**
 * Accepts the messages of `lines` and yields the answer as text: a line for each as its group is stored, in their order, the summary
 * last. A group is what came while the one before was being stored, so a caller that sends one line and waits has its answer at once.
 * What was read is accepted, even if the body breaks off or the caller stops to listen. Never throws: an answer that has begun can only
 * end.
 */
export async function* runIntake(
  { db, pool, log, stopping }: ApiDependencies,
  from: App,
  lines: AsyncGenerator<NdjsonLine[]>,
): AsyncGenerator<string> {
  const appNow = followApp(db, from);
  const appId = from.id;
  const counts = { accepted: 0, repeated: 0, failed: 0, lines: 0 };
  const taken: TakenLine[] = [];
  let isOpen = true;
  let failure: unknown;
  let nextBlock: Promise<Block> | undefined;
  let underWay: Promise<string> | undefined;

  async function acceptGroup(group: TakenLine[]): Promise<string> {
    const messages = group.flatMap((line) => ('message' in line ? [line.message] : []));
    const answers = messages.length === 0 ? [] : await acceptMessages(pool, messages);
    const before = counts.accepted;
    let at = 0;
    const lines = group.map((line) => toNdjson({ line: line.line, ...answerFor(line, () => answers[at++]!) })).join('');
    acceptedMessages.inc({ by: 'stream' }, counts.accepted - before);
    return lines;
  }

  function answerFor(
    line: TakenLine,
    nextAnswer: () => Awaited<ReturnType<typeof acceptMessages>>[number],
  ): Record<string, unknown> {
    if ('error' in line) return failed(line.error);
    const answer = nextAnswer();
    const refusal = refusalOf(line.message, answer, 'idempotency_key');
    if (refusal) return failed(refusal);
    if (answer.kind === 'repeat') {
      counts.repeated++;
      return { id: answer.id, repeated: true };
    }
    counts.accepted++;
    const { devices, skipped } = answer as Extract<typeof answer, { kind: 'accepted' }>;
    return {
      id: line.message.id,
      deliveries: devices.length,
      ...(skipped.length > 0 && { skipped: skipped.map(fromSkipped) }),
    };
  }

  function failed({ code, field = '', message }: ApiError): Record<string, unknown> {
    counts.failed++;
    return { code, field, message };
  }

  async function acceptRest(): Promise<void> {
    await underWay;
    while (taken.length > 0) await acceptGroup(taken.splice(0, maxMessagesOfGroup));
  }

  try {
    for (;;) {
      if (!underWay && taken.length > 0) {
        underWay = acceptGroup(taken.splice(0, maxMessagesOfGroup));
        // It is awaited below; a rejection before that is not an unhandled one.
        underWay.catch(() => {});
      }
      if (isOpen && taken.length < maxMessagesOfGroup) nextBlock ??= readBlock(lines, stopping);
      if (!underWay && !nextBlock) break;
      const event = await Promise.race([underWay, nextBlock].filter((promise) => promise !== undefined));
      if (typeof event === 'string') {
        underWay = undefined;
        yield event;
        continue;
      }
      nextBlock = undefined;
      if (event.lines) {
        counts.lines += event.lines.length;
        const app = await appNow();
        taken.push(...event.lines.map((line) => takeLine(line, app)));
      } else {
        isOpen = false;
        failure = event.failure;
      }
    }
    if (failure !== undefined) throw failure;
    yield toNdjson({ ...counts, complete: true });
  } catch (cause) {
    const { code, message } = toApiError(cause);
    log.warn({ err: cause, appId, lines: counts.lines }, 'a stream of messages ended early');
    // Not accepted: the caller is told that they have no answer.
    taken.length = 0;
    yield toNdjson({ ...counts, complete: false, code, message });
  } finally {
    // Not awaited: a body that is silent would be waited for.
    lines.return(undefined).catch(() => {});
    await acceptRest().catch((err) => log.warn({ err, appId }, 'messages of a caller that has gone were not accepted'));
  }
}

function takeLine(source: NdjsonLine, app: App): TakenLine {
  const { line } = source;
  try {
    const { idempotency_key: key, ...body } = checkLine(parseLine(source), messageLineSchema);
    return { line, message: toNewMessage(app, body, key) };
  } catch (cause) {
    return { line, error: toApiError(cause) };
  }
}

/** Never rejects. Ends also when the process is asked to stop, although the body goes on. */
function readBlock(lines: AsyncGenerator<NdjsonLine[]>, stopping: AbortSignal | undefined): Promise<Block> {
  return new Promise((resolve) => {
    const stop = () =>
      resolve({
        lines: undefined,
        failure: new ApiError(503, 'internal', 'The service is stopping: send the lines without an answer again.'),
      });
    if (stopping?.aborted) {
      stop();
      return;
    }
    stopping?.addEventListener('abort', stop, { once: true });
    lines
      .next()
      .then(
        ({ done, value }) => resolve(done ? { lines: undefined } : { lines: value }),
        (failure: unknown) => resolve({ lines: undefined, failure }),
      )
      .finally(() => stopping?.removeEventListener('abort', stop));
  });
}
