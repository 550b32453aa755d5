/**
 * `npm run chaos`: sends notifications through the real stack while its parts are killed, frozen, restarted and lied to, and
 * compares the books with the simulator's ledger after each. A seed draws what happens, so the same seed replays it.
 */
import { readCommandLine } from '../../domain/command-line.ts';
import { stopSignal } from '../../domain/stop-signal.ts';
import { stateDirectory } from '../../local/paths.ts';
import { startStack } from '../../local/stack.ts';
import { type ChaosResult, runChaos } from './run.ts';
import { chaosStack } from './settings.ts';
import { runWrongEnvironment } from './wrong-environment.ts';

const usage = `npm run chaos -- [options]

  --seed N       the scenario; default 1
  --seeds N      so many seeds, from --seed on, a table row each; default 1
  --devices N    devices of each send; default 3000
  --wrong-environment  small sends in a wrong APNs environment, paused, their workers killed: nobody may be retired
  --story        tell what happened in every run, not only in those that fail
  --keep-logs    leave the folder of the stack behind, with the logs of its parts
  --json         standard output has one JSON object for each seed and nothing else
  --help

Exit status 0: every promise was kept in every run.
`;

const { values, wholeNumber } = readCommandLine(usage, {
  seed: { type: 'string' },
  seeds: { type: 'string' },
  devices: { type: 'string' },
  'wrong-environment': { type: 'boolean' },
  story: { type: 'boolean' },
  'keep-logs': { type: 'boolean' },
  json: { type: 'boolean' },
});
const firstSeed = wholeNumber('seed', 0) ?? 1;
const seeds = wholeNumber('seeds', 1) ?? 1;
const devices = wholeNumber('devices', 500) ?? 3_000;

const say = (line: string) => (values.json ? console.error(line) : console.log(line));
const signal = stopSignal();
const options = chaosStack(stateDirectory);
if (values['keep-logs']) {
  options.isTemporary = false;
  say(`The logs are in ${options.directory}.`);
}
const stack = await startStack({ ...options, signal, say: sayCalmly });

const columns = [
  'seed',
  'devices',
  'small',
  'messages',
  'webhooks',
  'kills',
  'restarts',
  'faults',
  'in flight',
  'repeats',
  'marked',
  'lost',
  'seconds',
];
say(`\n${columns.map((name) => name.padStart(10)).join('')}  result`);
let failures = 0;
for (let run = 0; run < seeds && !signal.aborted; run++) {
  try {
    if (values['wrong-environment']) {
      const result = await runWrongEnvironment(stack, firstSeed + run, run);
      if (result.problems.length > 0) failures++;
      (values.json ? console.log : say)(JSON.stringify(result));
      continue;
    }
    const result = await runChaos(stack, firstSeed + run, run, devices, signal);
    show(result);
    if (result.problems.length > 0) failures++;
    if (values.json) console.log(JSON.stringify(result.report));
  } catch (error) {
    if (signal.aborted) break;
    failures++;
    say(`seed ${firstSeed + run}: ${error instanceof Error ? error.stack : error}`);
  }
}
await stack.stop();
if (signal.aborted) say('Stopped before the end.');
else say(failures === 0 ? 'Every promise was kept.' : `${failures} of ${seeds} runs are not as they must be.`);
process.exit(failures === 0 && !signal.aborted ? 0 : 1);

/** Hides the parts' complaints about each other's absence: a run is made of them. */
function sayCalmly(line: string): void {
  if (!/^\[(API|worker.*)\]/.test(line)) say(line);
}

function show({ report, verdict, problems, story, looks, seconds }: ChaosResult): void {
  const { seed, kills, restarts, faults, repeats, repeats_marked, lost } = report;
  const cells = [
    seed,
    report.devices,
    report.small_sends,
    report.messages,
    report.webhooks,
    kills,
    restarts,
    faults,
    verdict.inFlight,
    repeats,
    repeats_marked,
    lost,
  ];
  const result = problems.length === 0 ? `passed, ${looks} looks` : 'FAILED';
  say(`${[...cells, seconds.toFixed(1)].map((cell) => String(cell).padStart(10)).join('')}  ${result}`);
  if (problems.length === 0 && !values.story) return;
  for (const line of story) say(`    ${line}`);
  for (const problem of problems) say(`    PROBLEM: ${problem}`);
}
