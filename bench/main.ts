/**
 * `npm run bench`: measures the engine alone, a slow provider, one batch, the whole stack, small sends, messages to one person, latencies,
 * the API and events, and checks each time that the measured work was done. Compare figures of one run with each other, not with those of another day.
 */
import { readCommandLine } from '../domain/command-line.ts';
import { stopSignal } from '../domain/stop-signal.ts';
import { type ApiFigures, benchApi } from './api.ts';
import { benchDeliver, type DeliverFigures } from './deliver.ts';
import { benchEngine, type SenderFigures, type SenderName } from './engine.ts';
import { benchEvents, type EventFigures } from './events.ts';
import { benchLatency, type LatencyFigures } from './latency.ts';
import { benchMessages, type MessageFigures } from './messages.ts';
import { benchPace, type PaceFigures } from './pace.ts';
import { benchSmallSends, type SmallSendFigures } from './small-sends.ts';
import { benchStack, type StackFigures } from './stack.ts';

const parts = ['engine', 'pace', 'deliver', 'stack', 'small', 'messages', 'latency', 'api', 'events'] as const;
type Part = (typeof parts)[number];

const usage = `npm run bench -- [options]

  --only LIST   parts to run, of ${parts.join(',')}; default all
  --quick       fewer rounds and smaller audiences: all parts in about six minutes
  --huge        a send to 10 000 000 devices as well; half an hour more
  --json        the last line of output is one JSON object; parts that did not run are null
  --help`;

/** The JSON object of `npm run bench -- --json`. */
interface BenchReport extends Nullable<LatencyFigures>, Nullable<ApiFigures> {
  engine: Record<SenderName, SenderFigures | null> | null;
  pace: PaceFigures[] | null;
  deliver: DeliverFigures | null;
  /** Sends a second with books over sends a second without. */
  tax: number | null;
  stack: StackFigures[] | null;
  /** Notifications to one device. */
  small: SmallSendFigures | null;
  /** Messages to one person. */
  messages: MessageFigures | null;
  /** What devices tell of a send. */
  events: EventFigures | null;
}
type Nullable<T> = { [K in keyof T]: T[K] | null };

const { values, listOf } = readCommandLine(usage, {
  only: { type: 'string' },
  quick: { type: 'boolean', default: false },
  huge: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
});
const { quick } = values;
stopSignal().addEventListener('abort', () => process.exit(1));
const only = listOf('only', parts) ?? parts;
const chosen = parts.filter((part) => only.includes(part));
const say = (line: string) => (values.json ? console.error(line) : console.log(line));

const report: BenchReport = {
  engine: null,
  pace: null,
  deliver: null,
  tax: null,
  stack: null,
  small: null,
  messages: null,
  events: null,
  pause_ms: null,
  overtake_ms: null,
  import_rows_per_second: null,
  api_requests_per_second: null,
};
const runs: Record<Part, () => Promise<Partial<BenchReport>>> = {
  engine: async () => ({ engine: await benchEngine({ quick, say }) }),
  pace: async () => ({ pace: await benchPace(quick, say) }),
  deliver: () => benchDeliver(quick, say),
  stack: async () => ({
    stack: await benchStack(
      [...(quick ? [20_000, 100_000] : [100_000, 1_000_000]), ...(values.huge ? [10_000_000] : [])],
      say,
    ),
  }),
  small: async () => ({ small: await benchSmallSends(quick, say) }),
  messages: async () => ({ messages: await benchMessages(quick, say) }),
  latency: () => (quick ? benchLatency(300_000, 3, say) : benchLatency(1_000_000, 10, say)),
  api: () => benchApi(quick, say),
  events: async () => ({ events: await benchEvents(quick, say) }),
};
const startedAt = performance.now();
for (const part of chosen) {
  Object.assign(report, await runs[part]());
  say('');
}
say(`${Math.round((performance.now() - startedAt) / 1000)} s.`);
if (values.json) console.log(JSON.stringify(report));
