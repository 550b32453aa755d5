/**
 * Runs the simulator as a program. Settings come from flags (`--apns-port 2197`) or, in capitals, from the environment
 * (`SIMULATOR_APNS_PORT`); all are optional. Prints one line of JSON with every address when it is ready.
 */
import { readCommandLine } from '../domain/command-line.ts';
import { stopSignal } from '../domain/stop-signal.ts';
import { checkFields } from './checks.ts';
import { type SimulatorOptions, startSimulator } from './simulator.ts';
import { simulatorSettingsFields } from './state.ts';

const flags = {
  host: { type: 'string' },
  'apns-port': { type: 'string' },
  'apns-sandbox-port': { type: 'string' },
  'fcm-port': { type: 'string' },
  'oauth-port': { type: 'string' },
  'control-port': { type: 'string' },
  seed: { type: 'string' },
  /** Where keys and certificates are kept. */
  directory: { type: 'string' },
  /** Comma-separated bundle ids. */
  topics: { type: 'string' },
  'apns-key-id': { type: 'string' },
  'apns-team-id': { type: 'string' },
  'fcm-project': { type: 'string' },
  recent: { type: 'string' },
  /** JSON: any of the settings. */
  settings: { type: 'string' },
  /** Ends the simulator when its standard input ends, so that it does not outlive its parent. */
  'exit-with-stdin': { type: 'boolean' },
} as const;

const usage = `npm run simulator -- [options]

${Object.entries(flags)
  .map(([name, { type }]) => `  --${name}${type === 'string' ? ' …' : ''}`)
  .join('\n')}

simulator/README.md says what they mean.`;
const { values, refuse } = readCommandLine(usage, flags);

function text(name: keyof typeof flags): string | undefined {
  const value = values[name] ?? process.env[`SIMULATOR_${name.toUpperCase().replaceAll('-', '_')}`];
  return value === undefined || value === '' ? undefined : String(value);
}

function port(name: keyof typeof flags): number {
  const value = number(name, 0);
  return value < 65_536 ? value : refuse(`--${name} must be a number up to 65535, not ${value}.`);
}

function settings(): object {
  let value: unknown;
  try {
    value = JSON.parse(text('settings') ?? '{}');
  } catch {
    return refuse('--settings must be a JSON object.');
  }
  try {
    checkFields(value, simulatorSettingsFields, '--settings ');
    return value as object;
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

function number(name: keyof typeof flags, fallback: number): number {
  const given = text(name);
  if (given === undefined) return fallback;
  return /^\d{1,15}$/.test(given) ? Number(given) : refuse(`--${name} must be a whole number, not "${given}".`);
}

const directory = text('directory');
const topics = text('topics');
const apnsKeyId = text('apns-key-id');
const apnsTeamId = text('apns-team-id');
const fcmProjectId = text('fcm-project');
const options: SimulatorOptions = {
  host: text('host') ?? '127.0.0.1',
  ports: {
    apns: port('apns-port'),
    apnsSandbox: port('apns-sandbox-port'),
    fcm: port('fcm-port'),
    oauth: port('oauth-port'),
    control: port('control-port'),
  },
  seed: number('seed', 1),
  recentRequests: number('recent', 1000),
  settings: settings(),
  ...(directory === undefined ? {} : { directory }),
  ...(topics === undefined ? {} : { apnsTopics: topics.split(',') }),
  ...(apnsKeyId === undefined ? {} : { apnsKeyId }),
  ...(apnsTeamId === undefined ? {} : { apnsTeamId }),
  ...(fcmProjectId === undefined ? {} : { fcmProjectId }),
};

const simulator = await startSimulator(options);
const { state: _state, close: _close, ...addresses } = simulator;
process.stdout.write(`${JSON.stringify({ ready: true, pid: process.pid, ...addresses })}\n`);

let isEnding = false;
async function end(): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  await simulator.close();
  process.exit(0);
}
stopSignal().addEventListener('abort', end);
if (values['exit-with-stdin']) {
  process.stdin.on('end', end);
  process.stdin.on('error', end);
  process.stdin.resume();
}
