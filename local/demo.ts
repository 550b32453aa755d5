/**
 * `npm run demo`: starts everything on embedded parts, loads an audience, sends one notification through real HTTP/2 and
 * shows the books. Exits 0 only if they balance and the simulator's own ledger agrees.
 */
import { mkdirSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import { readCommandLine } from '../domain/command-line.ts';
import { providerNames } from '../domain/device.ts';
import { stopSignal } from '../domain/stop-signal.ts';
import { describeStack } from './banner.ts';
import { demoAudienceDefaults, runDemoSend } from './demo-send.ts';
import { stateDirectory } from './paths.ts';
import { formatCount } from './progress.ts';
import { startStack } from './stack.ts';

const usage = `npm run demo -- [options]

  --devices N            size of the audience; default ${demoAudienceDefaults.devices}
  --dead-percent P       devices whose token is dead; default ${demoAudienceDefaults.deadPercent}
  --transient-percent P  devices that are refused at first (429, 503) and taken later; default ${demoAudienceDefaults.transientPercent}
  --providers LIST       default ${providerNames.join(',')}
  --workers N            worker processes; default 1
  --json                 the last line of output is one JSON object
  --keep                 leave the stack running until Ctrl-C`;

const { values, wholeNumber, percent, listOf } = readCommandLine(usage, {
  devices: { type: 'string' },
  'dead-percent': { type: 'string' },
  'transient-percent': { type: 'string' },
  providers: { type: 'string' },
  workers: { type: 'string' },
  json: { type: 'boolean' },
  keep: { type: 'boolean' },
});
const audience = {
  devices: wholeNumber('devices', 1, 20_000_000) ?? demoAudienceDefaults.devices,
  deadPercent: percent('dead-percent') ?? demoAudienceDefaults.deadPercent,
  transientPercent: percent('transient-percent') ?? demoAudienceDefaults.transientPercent,
  providers: listOf('providers', providerNames) ?? [...providerNames],
};
const workers = wholeNumber('workers', 1, 64) ?? 1;

const signal = stopSignal();
const say = (line: string) => console.error(line);
const bootedAt = performance.now();
let exitCode = 1;
try {
  mkdirSync(stateDirectory, { recursive: true });
  const stack = await startStack({
    directory: mkdtempSync(path.join(stateDirectory, 'demo-')),
    isTemporary: true,
    workers,
    // A refused device is tried again after seconds, so that the demo is shorter than a real send.
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
  const waited = seconds.send - seconds.first_pass;
  say(
    `Sent in ${seconds.first_pass} s: ${formatCount(report.first_pass_per_second)} devices/s.` +
      (waited > 0 ? ` Then waited ${waited.toFixed(2)} s for devices that were refused at first.` : ''),
  );
  say(`Boot ${seconds.boot} s, import ${seconds.import} s, plan ${seconds.plan} s.`);
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
