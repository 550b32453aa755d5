/** Starts the simulator as a process of its own, so that it has a core to itself and can be killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { SimulatorAddresses, SimulatorOptions } from './simulator.ts';

export interface LaunchOptions extends SimulatorOptions {
  /** How long the child may take to be ready, in milliseconds. Default 20 000. */
  startTimeoutMs?: number;
}

export interface LaunchedSimulator extends SimulatorAddresses {
  readonly pid: number;
  /** Resolves when the process has ended, for whatever reason. */
  readonly ended: Promise<void>;
  /** The variables by which a sender uses this simulator. */
  readonly environment: Record<string, string>;
  /** Ends the process and waits for it. A repeat is harmless. */
  close(): Promise<void>;
}

/**
 * The child ends with this process, even if this process is killed: the child watches the pipe that is its standard input.
 * @throws when the child does not become ready; its standard error is part of the message.
 */
export async function launchSimulator(options: LaunchOptions = {}): Promise<LaunchedSimulator> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('main.ts', import.meta.url)), ...flagsOf(options)], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const addresses = await readReadyLine(child, options.startTimeoutMs ?? 20_000);
  // The pipes must not keep the parent alive; `close` still works.
  child.unref();
  for (const pipe of [child.stdin, child.stdout, child.stderr]) (pipe as unknown as { unref?(): void }).unref?.();
  return {
    ...addresses,
    pid: child.pid ?? 0,
    ended,
    environment: simulatorEnvironment(addresses),
    async close() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.ref();
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), 2000);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Carillon's variables for the credentials and for the addresses at which the simulator stands in for the providers. */
export function simulatorEnvironment(addresses: SimulatorAddresses): Record<string, string> {
  const { files } = addresses;
  return {
    APNS_KEY_FILE: files.apnsKeyPath,
    APNS_KEY_ID: files.apnsKeyId,
    APNS_TEAM_ID: files.apnsTeamId,
    APNS_TOPIC: addresses.apnsTopic,
    APNS_URL: addresses.apnsUrl,
    APNS_SANDBOX_URL: addresses.apnsSandboxUrl,
    FCM_SERVICE_ACCOUNT_FILE: files.fcmServiceAccountPath,
    FCM_URL: addresses.fcmUrl,
    FCM_TOKEN_URL: addresses.oauthTokenUrl,
    NODE_EXTRA_CA_CERTS: files.caCertificatePath,
    DENO_CERT: files.caCertificatePath,
  };
}

function flagsOf(options: LaunchOptions): string[] {
  const flags = ['--exit-with-stdin'];
  const add = (name: string, value: string | number | undefined) => {
    if (value !== undefined) flags.push(`--${name}`, String(value));
  };
  add('host', options.host);
  add('apns-port', options.ports?.apns);
  add('apns-sandbox-port', options.ports?.apnsSandbox);
  add('fcm-port', options.ports?.fcm);
  add('oauth-port', options.ports?.oauth);
  add('control-port', options.ports?.control);
  add('seed', options.seed);
  add('directory', options.directory);
  add('topics', options.apnsTopics?.join(','));
  add('apns-key-id', options.apnsKeyId);
  add('apns-team-id', options.apnsTeamId);
  add('fcm-project', options.fcmProjectId);
  add('recent', options.recentRequests);
  add('settings', options.settings === undefined ? undefined : JSON.stringify(options.settings));
  return flags;
}

async function readReadyLine(child: ChildProcess, timeoutMs: number): Promise<SimulatorAddresses> {
  let complaint = '';
  let isReady = false;
  child.stderr?.on('data', (part: Buffer) => {
    if (isReady) process.stderr.write(part);
    else if (complaint.length < 10_000) complaint += part.toString('utf8');
  });
  const lines = createInterface({ input: child.stdout! });
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(new Error(`the simulator did not start: ${why}\n${complaint}`));
    };
    const timer = setTimeout(() => fail(`not ready after ${timeoutMs} ms`), timeoutMs);
    child.once('error', (error) => fail(error.message));
    const exited = (code: number | null) => fail(`exit status ${code}`);
    child.once('exit', exited);
    lines.once('line', (line) => {
      clearTimeout(timer);
      isReady = true;
      child.off('exit', exited);
      const { ready: _ready, pid: _pid, ...addresses } = JSON.parse(line);
      lines.close();
      child.stdout?.resume();
      resolve(addresses);
    });
  });
}
