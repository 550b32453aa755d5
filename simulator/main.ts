/**
 * Runs the simulator as a program. Settings come from flags (`--apns-port 2197`) or, in capitals, from the environment
 * (`SIMULATOR_APNS_PORT`); all are optional. Prints one line of JSON with every address when it is ready.
 */
import { parseArgs } from 'node:util';
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
  /** Ends when standard input does, so that no orphan is left when the parent dies. */
  'exit-with-stdin': { type: 'boolean' },
} as const;

const { values } = parseArgs({ options: flags });

function text(name: keyof typeof flags): string | undefined {
  const value = values[name] ?? process.env[`SIMULATOR_${name.toUpperCase().replaceAll('-', '_')}`];
  return value === undefined || value === '' ? undefined : String(value);
}

function number(name: keyof typeof flags, fallback: number): number {
  const value = Number(text(name) ?? fallback);
  if (!Number.isInteger(value) || value < 0) throw new RangeError(`--${name} must be a whole number`);
  return value;
}

const settings = JSON.parse(text('settings') ?? '{}');
checkFields(settings, simulatorSettingsFields, '--settings ');
const directory = text('directory');
const topics = text('topics');
const apnsKeyId = text('apns-key-id');
const apnsTeamId = text('apns-team-id');
const fcmProjectId = text('fcm-project');
const options: SimulatorOptions = {
  host: text('host') ?? '127.0.0.1',
  ports: {
    apns: number('apns-port', 0),
    apnsSandbox: number('apns-sandbox-port', 0),
    fcm: number('fcm-port', 0),
    oauth: number('oauth-port', 0),
    control: number('control-port', 0),
  },
  seed: number('seed', 1),
  recentRequests: number('recent', 1000),
  settings,
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
process.on('SIGINT', end);
process.on('SIGTERM', end);
if (values['exit-with-stdin']) {
  process.stdin.on('end', end);
  process.stdin.on('error', end);
  process.stdin.resume();
}
