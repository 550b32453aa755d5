/**
 * `npm run demo`: starts everything on embedded parts, loads an audience, sends one notification through real HTTP/2 and
 * shows the books. Exits 0 only if they balance and the simulator's own ledger agrees.
 */
import { mkdirSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type ProviderName, providerNames } from '../domain/device.ts';
import { describeStack } from './banner.ts';
import { demoAudienceDefaults, runDemoSend } from './demo-send.ts';
import { stateDirectory } from './paths.ts';
import { formatCount } from './progress.ts';
import { startStack } from './stack.ts';
import { stopSignal } from './stop-signal.ts';

const usage = `npm run demo -- [options]

  --devices N            size of the audience; default ${demoAudienceDefaults.devices}
  --dead-percent P       devices whose token is dead; default ${demoAudienceDefaults.deadPercent}
  --transient-percent P  devices that are refused at first (429, 503) and taken later; default ${demoAudienceDefaults.transientPercent}
  --providers LIST       default ${providerNames.join(',')}
  --workers N            worker processes; default 1
  --json                 the last line of output is one JSON object
  --keep                 leave the stack running until Ctrl-C`;

const { values } = parseArgs({
  options: {
    devices: { type: 'string' },
    'dead-percent': { type: 'string' },
    'transient-percent': { type: 'string' },
    providers: { type: 'string' },
    workers: { type: 'string' },
    json: { type: 'boolean' },
    keep: { type: 'boolean' },
    help: { type: 'boolean' },
  },
});
if (values.help) {
  console.log(usage);
  process.exit(0);
}

const audience = {
  devices: toNumber('devices', values.devices, demoAudienceDefaults.devices, 1, 20_000_000),
  deadPercent: toNumber('dead-percent', values['dead-percent'], demoAudienceDefaults.deadPercent, 0, 100),
  transientPercent: toNumber(
    'transient-percent',
    values['transient-percent'],
    demoAudienceDefaults.transientPercent,
    0,
    100,
  ),
  providers: toProviders(values.providers),
};

const signal = stopSignal();
const say = (line: string) => console.error(line);
const bootedAt = performance.now();
let exitCode = 1;
try {
  mkdirSync(stateDirectory, { recursive: true });
  const stack = await startStack({
    directory: mkdtempSync(path.join(stateDirectory, 'demo-')),
    isTemporary: true,
    workers: toNumber('workers', values.workers, 1, 1, 16),
    // A refused device comes back after seconds, so that the demo needn't wait as long as a real send should.
    env: { CARILLON_RETRY_BASE_MS: '1000', CARILLON_RETRY_MAX_MS: '3000', LOG_LEVEL: 'warn' },
    apiKey: 'new',
    signal,
    say,
  });
  const bootSeconds = (performance.now() - bootedAt) / 1000;
  say(`\nCarillon is running.\n\n${describeStack(stack)}\n`);

  const result = await runDemoSend(stack, { ...audience, signal, say, progressStream: process.stderr });
  const { report } = result;
  report.seconds.boot = Number(bootSeconds.toFixed(2));
  exitCode = result.problems.length === 0 ? 0 : 1;

  say(`\nThe books of notification ${result.notificationId}\n`);
  for (const [outcome, count] of Object.entries(report.outcomes)) {
    if (count > 0) say(`  ${outcome.padEnd(14)} ${formatCount(count).padStart(12)}`);
  }
  say(`  ${'pending'.padEnd(14)} ${formatCount(report.pending).padStart(12)}`);
  say(
    `  ${'audience'.padEnd(14)} ${formatCount(report.audience).padStart(12)}   ${report.balanced ? 'balanced' : 'NOT BALANCED'}`,
  );
  say(
    `\nThe simulator's ledger: ${formatCount(report.ledger.distinct_accepted)} devices accepted, ${formatCount(report.ledger.repeats)} repeats.`,
  );
  const { seconds } = report;
  say(
    `Boot ${seconds.boot} s, import ${seconds.import} s, plan ${seconds.plan} s, send ${seconds.send} s: ${formatCount(report.devices_per_second)} devices/s.`,
  );
  for (const problem of result.problems) say(`PROBLEM: ${problem}`);

  if (values.keep && !signal.aborted) {
    say(`\nThe stack stays up until Ctrl-C.\n\n${describeStack(stack)}\n  API key            ${stack.apiKey}`);
    if (values.json) console.log(JSON.stringify(report));
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }
  await stack.stop();
  if (values.json && !values.keep) console.log(JSON.stringify(report));
} catch (error) {
  say(signal.aborted ? 'Stopped.' : error instanceof Error ? error.message : String(error));
}
process.exit(exitCode);

function toNumber(name: string, text: string | undefined, fallback: number, min: number, max: number): number {
  if (text === undefined) return fallback;
  const number = Number(text.replaceAll('_', ''));
  const isRight = name.endsWith('percent') ? Number.isFinite(number) : Number.isInteger(number);
  if (isRight && number >= min && number <= max) return number;
  console.error(`--${name} must be a number from ${min} to ${max}, not "${text}".`);
  process.exit(2);
}

function toProviders(text: string | undefined): ProviderName[] {
  if (text === undefined) return [...providerNames];
  const names = text.split(',').map((name) => name.trim());
  const isProvider = (name: string): name is ProviderName => (providerNames as readonly string[]).includes(name);
  if (names.length > 0 && names.every(isProvider)) return names;
  console.error(`--providers must be a list of ${providerNames.join(', ')}, not "${text}".`);
  process.exit(2);
}
