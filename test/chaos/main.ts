/**
 * `npm run chaos`: sends notifications through the real stack while its parts are killed, frozen, restarted and lied to, and
 * holds the books to the simulator's ledger after each. What happens is drawn from a seed, so that a seed replays it.
 */
import { mkdirSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { stateDirectory } from '../../local/paths.ts';
import { startStack } from '../../local/stack.ts';
import { stopSignal } from '../../local/stop-signal.ts';
import { type ChaosResult, chaosSettings, runChaos } from './run.ts';

const usage = `npm run chaos -- [options]

  --seed N       the scenario; default 1
  --seeds N      so many seeds, from --seed on; default 1
  --devices N    devices of each send; default 3000
  --keep-logs    leave the logs of the stack behind
  --json         the last line is a JSON object (of the last seed)
  --help
`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    devices: { type: 'string', default: '3000' },
    'keep-logs': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(usage);
  process.exit(0);
}
const [seed, seeds, devices] = [
  toNumber('seed', values.seed, 0),
  toNumber('seeds', values.seeds, 1),
  toNumber('devices', values.devices, 500),
];

const say = (line: string) => (values.json ? console.error(line) : console.log(line));
const signal = stopSignal();
mkdirSync(stateDirectory, { recursive: true });
const stack = await startStack({
  directory: mkdtempSync(path.join(stateDirectory, 'chaos-')),
  isTemporary: !values['keep-logs'],
  ports: 'free',
  hasWebUi: false,
  workers: 2,
  env: chaosSettings,
  signal,
  say,
});

const columns = ['seed', 'devices', 'kills', 'restarts', 'faults', 'repeats', 'marked', 'lost', 'seconds'];
say(`\n${columns.map((name) => name.padStart(9)).join('')}  result`);
let failures = 0;
let last: ChaosResult | undefined;
for (let run = 0; run < seeds && !signal.aborted; run++) {
  try {
    last = await runChaos(stack, seed + run, run, devices);
    show(last);
    if (last.problems.length > 0) failures++;
  } catch (error) {
    failures++;
    say(`seed ${seed + run}: ${error instanceof Error ? error.message : error}`);
  }
}
await stack.stop();
say(failures === 0 ? 'Everything is in the books.' : `${failures} of ${seeds} runs are not as they must be.`);
if (values.json && last) console.log(JSON.stringify(last.report));
process.exit(failures === 0 && last ? 0 : 1);

function show({ report, problems, story, seconds }: ChaosResult): void {
  const { seed, devices, kills, restarts, faults, repeats, repeats_marked, lost } = report;
  const cells = [seed, devices, kills, restarts, faults, repeats, repeats_marked, lost, seconds.toFixed(1)];
  const result = problems.length === 0 ? 'passed' : 'FAILED';
  say(`${cells.map((cell) => String(cell).padStart(9)).join('')}  ${result}`);
  if (problems.length === 0) return;
  for (const line of story) say(`    ${line}`);
  for (const problem of problems) say(`    PROBLEM: ${problem}`);
}

function toNumber(name: string, text: string, min: number): number {
  const number = Number(text.replaceAll('_', ''));
  if (Number.isInteger(number) && number >= min) return number;
  console.error(`--${name} must be a whole number of at least ${min}, not "${text}".\n\n${usage}`);
  process.exit(2);
}
