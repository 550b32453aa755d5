/** Carries out the action of a rule on one request. */
import { errorCodeNumber } from './error-codes.ts';
import type { Exchange } from './exchange.ts';
import { type Action, type BodyDelivery, drawLatencyMs } from './rules.ts';

/** What an action needs from the provider whose request it is. */
export interface ActionContext {
  random: () => number;
  /** Records that the provider took the message. */
  accept(): void;
  /** Counts how the request ended, as the ledger names it. */
  countEnding(ending: string): void;
  /** The provider's exact answer for a status and reason. */
  errorAnswer(status: number, reason: string | undefined, timestampMs: number | undefined): Answer;
  /** Treats the request in the ordinary way. */
  proceed(): void;
}

export interface Answer {
  headers: readonly string[];
  body: string;
}

/** Applies the actions in order, then the ordinary way unless one of them ended the request. */
export function applyActions(actions: readonly Action[], exchange: Exchange, context: ActionContext): void {
  const [action, ...rest] = actions;
  if (action === undefined) {
    context.proceed();
    return;
  }
  const goOn = () => applyActions(rest, exchange, context);
  if ('accept' in action && action.accept) context.accept();
  switch (action.type) {
    case 'delay':
      setTimeout(goOn, drawLatencyMs(action.latency, context.random));
      break;
    case 'maxConcurrentStreams':
      exchange.connection.setMaxConcurrentStreams(action.limit);
      goOn();
      break;
    case 'goaway':
      applyGoaway(action, exchange, context, goOn);
      break;
    case 'respond':
      respond(action, exchange, context);
      break;
    case 'html':
      context.countEnding(`${action.status} html`);
      exchange.respond(action.status, ['content-type', 'text/html; charset=UTF-8'], htmlPage(action.status));
      break;
    case 'stall':
      context.countEnding('stall');
      break;
    case 'rstStream':
      context.countEnding(`rst ${action.code}`);
      exchange.resetStream(errorCodeNumber(action.code));
      break;
    case 'reset':
      context.countEnding('reset');
      exchange.connection.reset();
      break;
    case 'end':
      context.countEnding('end');
      exchange.connection.end();
      break;
    case 'blackHole':
      context.countEnding('blackHole');
      exchange.connection.blackHole();
      break;
  }
}

/** Contains `[` and `<`, so that a parser of JSON or of parts of it stumbles. */
export function htmlPage(status: number): string {
  return `<!DOCTYPE html>\n<html lang=en><title>Error ${status} (Server Error)!!1</title><script>var a=["x",{"b":1}];</script><p><b>${status}.</b> That’s an error.</p></html>\n`;
}

type GoawayAction = Extract<Action, { type: 'goaway' }>;
type RespondAction = Extract<Action, { type: 'respond' }>;

function applyGoaway(action: GoawayAction, exchange: Exchange, context: ActionContext, goOn: () => void): void {
  const connection = exchange.connection;
  const last = action.last ?? 'this';
  const lastStreamId =
    typeof last === 'number' ? last : last === 'zero' ? 0 : exchange.streamId - (last === 'previous' ? 2 : 0);
  const debugData = action.debugData ?? (action.reason === undefined ? '' : JSON.stringify({ reason: action.reason }));
  const errorCode = errorCodeNumber(action.code ?? 0);
  const closesWhenDone = action.closesWhenDone ?? true;
  // The first GOAWAY says that the end is near, the second where it is (RFC 9113 §6.8).
  if (action.twice) connection.goaway({ lastStreamId: 2 ** 31 - 1, closesWhenDone: false });
  connection.goaway({ lastStreamId: Math.max(0, lastStreamId), errorCode, debugData, closesWhenDone });
  // If a stream above this one was taken, it raises the last id, and this request is answered after all.
  if (exchange.isOpen) goOn();
  else context.countEnding('goaway');
}

function respond(action: RespondAction, exchange: Exchange, context: ActionContext): void {
  context.countEnding(action.reason === undefined ? String(action.status) : `${action.status} ${action.reason}`);
  const answer = context.errorAnswer(action.status, action.reason, action.timestamp);
  const extra = Object.entries(action.headers ?? {}).flatMap(([name, value]) => [name.toLowerCase(), value]);
  const replaced = new Set(extra.filter((_, i) => i % 2 === 0));
  const headers: string[] = [];
  for (let i = 0; i < answer.headers.length; i += 2) {
    if (!replaced.has(answer.headers[i]!)) headers.push(answer.headers[i]!, answer.headers[i + 1]!);
  }
  headers.push(...extra);
  const text = action.body ?? (action.bodyBytes === undefined ? answer.body : 'x'.repeat(action.bodyBytes));
  deliver(exchange, action.status, headers, Buffer.from(text, 'utf8'), action.delivery ?? 'whole');
}

function deliver(
  exchange: Exchange,
  status: number,
  headers: readonly string[],
  body: Buffer,
  delivery: BodyDelivery,
): void {
  if (delivery === 'whole') {
    exchange.respond(status, headers, body);
    return;
  }
  exchange.sendHead(status, headers);
  if (delivery === 'stalled') return;
  const size = delivery === 'bytes' ? 1 : Math.max(1, Math.ceil(body.length / 2));
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) parts.push(body.subarray(at, at + size));
  if (delivery === 'truncated') parts.length = 1;
  sendParts(exchange, parts);
}

/** One part per turn of a short timer, so that each is a write of its own. */
function sendParts(exchange: Exchange, parts: Buffer[]): void {
  const [part, ...rest] = parts;
  exchange.sendBody(part ?? Buffer.alloc(0), rest.length === 0);
  if (rest.length > 0) setTimeout(() => sendParts(exchange, rest), 2);
}
