/**
 * The engine alone against other senders: the same server, payload and device tokens, each sender in a process of its own, in
 * turn. CPU of the client process is compared; requests a second also depend on the server, so the table says how busy the server
 * was.
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { importPKCS8, SignJWT } from 'jose';
import { buildApnsContent } from '../providers/apns/payload.ts';
import { buildFcmContent } from '../providers/fcm/payload.ts';
import { SimulatorControl } from '../simulator/control-client.ts';
import { apnsDeviceToken, fcmRegistrationToken } from '../simulator/device-tokens.ts';
import { type LaunchedSimulator, launchSimulator } from '../simulator/launch.ts';
import { median, round } from './figures.ts';
import type { SenderReport, SenderTask } from './measure.ts';

export type SenderName = 'carillon' | 'undici' | 'node_http2' | 'node_apn' | 'firebase_admin' | 'apns2_go';
/** Medians of all rounds: microseconds of client CPU for each request, and requests a second. */
export interface SenderFigures {
  cpu_us: number;
  rps: number;
}

export interface EngineBenchOptions {
  quick: boolean;
  say: (line: string) => void;
}

interface Sender {
  /** `carillon_fcm` is what firebase-admin is compared with; it is in the table only. */
  name: SenderName | 'carillon_fcm';
  title: string;
  protocol: 'apns' | 'fcm';
  /** Share of the round's requests, so that every sender is busy for a second or two: a fast sender sends more. */
  share: number;
  /** Makes the sender ready to run: the command, or why there is none. */
  prepare(): Command | Unavailable;
}

interface Command {
  file: string;
  args: string[];
}

interface Unavailable {
  reason: string;
}

interface Round extends SenderFigures {
  /** Share of one core. */
  serverBusy: number;
}

const peers = join(import.meta.dirname, 'peers');
const inFlight = 1000;
/** Longer than any round by far; a sender that hangs must not stop the bench. */
const roundTimeoutMs = 180_000;

export async function benchEngine(options: EngineBenchOptions): Promise<Record<SenderName, SenderFigures | null>> {
  const { quick, say } = options;
  const [rounds, requests] = quick ? [2, 10_000] : [5, 30_000];
  const folder = mkdtempSync(join(tmpdir(), 'carillon-bench-'));
  const simulator = await launchSimulator({ recentRequests: 0 });
  try {
    const bench = new EngineBench(simulator, folder, say);
    say(`Engine alone: ${rounds} rounds in turn, ${requests} requests each (fast senders more), ${inFlight} in flight`);
    for (let round = 0; round < rounds; round++) {
      for (const sender of bench.senders) await bench.run(sender, requests);
    }
    bench.printTable();
    return bench.figures();
  } finally {
    await simulator.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

class EngineBench {
  readonly senders: readonly Sender[];
  readonly #simulator: LaunchedSimulator;
  readonly #control: SimulatorControl;
  readonly #folder: string;
  readonly #say: (line: string) => void;
  readonly #commands = new Map<Sender, Command>();
  readonly #rounds = new Map<Sender, Round[]>();
  #npmPeers: { reason: string | undefined } | undefined;

  constructor(simulator: LaunchedSimulator, folder: string, say: (line: string) => void) {
    this.#simulator = simulator;
    this.#control = new SimulatorControl(simulator.controlUrl);
    this.#folder = folder;
    this.#say = say;
    const node = (program: string, ...args: string[]): Command => ({
      file: process.execPath,
      args: [join(peers, program), ...args],
    });
    const installed = (program: string) => () => this.#installPeers() ?? node(program);
    const senders: Sender[] = [
      { name: 'carillon', title: 'Carillon', protocol: 'apns', share: 6, prepare: () => node('carillon.ts') },
      { name: 'undici', title: 'undici', protocol: 'apns', share: 1, prepare: () => node('undici.ts') },
      { name: 'node_http2', title: 'node:http2', protocol: 'apns', share: 1, prepare: () => node('node-http2.ts') },
      { name: 'node_apn', title: '@parse/node-apn', protocol: 'apns', share: 1, prepare: installed('node-apn.mjs') },
      { name: 'apns2_go', title: 'sideshow/apns2 (Go)', protocol: 'apns', share: 1, prepare: () => this.#buildGo() },
      {
        name: 'carillon_fcm',
        title: 'Carillon, FCM',
        protocol: 'fcm',
        share: 6,
        prepare: () => node('carillon.ts', 'fcm'),
      },
      {
        name: 'firebase_admin',
        title: 'firebase-admin, FCM',
        protocol: 'fcm',
        share: 0.5,
        prepare: installed('firebase-admin.mjs'),
      },
    ];
    this.senders = senders.filter((sender) => {
      const prepared = sender.prepare();
      if ('reason' in prepared) say(`  ${sender.title}: not measured, ${prepared.reason}`);
      else this.#commands.set(sender, prepared);
      return this.#commands.has(sender);
    });
  }

  /** One round of one sender. A sender that fails is not run again, and has no figures. */
  async run(sender: Sender, requestsOfRound: number): Promise<void> {
    const command = this.#commands.get(sender);
    if (command === undefined) return;
    const requests = Math.round(requestsOfRound * sender.share);
    try {
      const rounds = this.#rounds.get(sender) ?? [];
      rounds.push(await this.#measure(sender, command, requests));
      this.#rounds.set(sender, rounds);
    } catch (error) {
      this.#say(`  ${sender.title}: not measured, ${error instanceof Error ? error.message : error}`);
      this.#commands.delete(sender);
      this.#rounds.delete(sender);
    }
  }

  async #measure(sender: Sender, { file, args }: Command, requests: number): Promise<Round> {
    const taskFile = join(this.#folder, 'task.json');
    writeFileSync(taskFile, JSON.stringify(await this.#describe(sender, requests)));
    await this.#control.resetLedger();
    const before = await this.#control.processUsage();
    const output = await runProgram(file, [...args, taskFile]);
    const serverCpuUs = (await this.#control.processUsage()).cpu_us - before.cpu_us;
    const report: SenderReport = JSON.parse(output);
    const { accepted, repeats, protocol_errors: protocolErrors } = await this.#control.ledgerSummary();
    const sent = 2 * requests;
    if (report.accepted !== requests || accepted !== sent || repeats !== 0 || protocolErrors !== 0) {
      throw new Error(
        `the books differ: of ${sent} requests ${requests + report.accepted} were accepted by its own count and ` +
          `${accepted} by the server's, with ${repeats} repeats and ${protocolErrors} protocol errors`,
      );
    }
    const rps = requests / report.seconds;
    return { cpu_us: (report.cpu_seconds / requests) * 1e6, rps, serverBusy: (serverCpuUs / sent / 1e6) * rps };
  }

  async #describe({ protocol }: Sender, requests: number): Promise<SenderTask> {
    const { files, apnsUrl, fcmUrl, apnsTopic, oauthTokenUrl } = this.#simulator;
    const expiresAt = new Date(Date.now() + message.ttlSeconds * 1000);
    const content = { notificationId, message, expiresAt };
    const apns = buildApnsContent(content);
    const payload = protocol === 'apns' ? apns.payload : buildFcmContent(content, new Date()).message;
    const deviceToken = protocol === 'apns' ? apnsDeviceToken : fcmRegistrationToken;
    return {
      url: protocol === 'apns' ? apnsUrl : fcmUrl,
      ca_file: files.caCertificatePath,
      key_file: files.apnsKeyPath,
      key_id: files.apnsKeyId,
      team_id: files.apnsTeamId,
      provider_token: await this.#createProviderToken(),
      topic: apnsTopic,
      service_account_file: files.fcmServiceAccountPath,
      oauth_token_url: oauthTokenUrl,
      notification_id: notificationId,
      message,
      expires_at_ms: expiresAt.getTime(),
      payload: JSON.stringify(payload),
      headers: { 'apns-topic': apnsTopic, ...apns.headers },
      device_tokens: Array.from({ length: 2 * requests }, (_, n) => deviceToken(n)),
      // A sender runs for days: what its first seconds spend on compiling itself must not count.
      warm_up: requests,
      requests,
      in_flight: inFlight,
    };
  }

  async #createProviderToken(): Promise<string> {
    const { files } = this.#simulator;
    return new SignJWT()
      .setProtectedHeader({ alg: 'ES256', kid: files.apnsKeyId })
      .setIssuer(files.apnsTeamId)
      .setIssuedAt()
      .sign(await importPKCS8(readFileSync(files.apnsKeyPath, 'utf8'), 'ES256'));
  }

  figures(): Record<SenderName, SenderFigures | null> {
    const of = (name: SenderName): SenderFigures | null => {
      const medians = this.#mediansOf(name);
      return medians === undefined ? null : { cpu_us: round(medians.cpu_us, 1), rps: round(medians.rps, 0) };
    };
    return {
      carillon: of('carillon'),
      undici: of('undici'),
      node_http2: of('node_http2'),
      node_apn: of('node_apn'),
      firebase_admin: of('firebase_admin'),
      apns2_go: of('apns2_go'),
    };
  }

  /** Ratios are to Carillon by the same protocol. */
  printTable(): void {
    const row = (title: string, ...cells: string[]) =>
      this.#say(`  ${title.padEnd(22)}${cells.map((cell) => cell.padStart(13)).join('')}`);
    row('', 'CPU µs each', '× Carillon', 'requests/s', '× Carillon', 'server busy');
    for (const { name, title, protocol } of this.senders) {
      const own = this.#mediansOf(name);
      if (own === undefined) continue;
      const base = this.#mediansOf(protocol === 'apns' ? 'carillon' : 'carillon_fcm');
      const ratio = (key: keyof SenderFigures) => (base === undefined ? '' : (own[key] / base[key]).toFixed(2));
      const busy = `${Math.round(own.serverBusy * 100)} %`;
      row(title, own.cpu_us.toFixed(1), ratio('cpu_us'), own.rps.toFixed(0), ratio('rps'), busy);
    }
    this.#say(
      '  CPU of the client process. Where the server is busy all the time, requests/s are its limit, not the sender’s.',
    );
  }

  #mediansOf(name: Sender['name']): Round | undefined {
    const sender = this.senders.find((candidate) => candidate.name === name);
    const rounds = sender && this.#rounds.get(sender);
    if (rounds === undefined) return undefined;
    return {
      cpu_us: median(rounds.map(({ cpu_us }) => cpu_us)),
      rps: median(rounds.map(({ rps }) => rps)),
      serverBusy: median(rounds.map(({ serverBusy }) => serverBusy)),
    };
  }

  /** Installs the libraries once, when the first sender asks. Undefined: they are installed. */
  #installPeers(): Unavailable | undefined {
    this.#npmPeers ??= { reason: this.#tryToInstallPeers() };
    const { reason } = this.#npmPeers;
    return reason === undefined ? undefined : { reason };
  }

  #tryToInstallPeers(): string | undefined {
    if (peersAreInstalled()) return undefined;
    this.#say('  Installing the senders to compare with: npm ci in bench/peers …');
    const { npm_execpath: npm, npm_node_execpath: node } = process.env;
    const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
    const options = { cwd: peers, encoding: 'utf8', timeout: 300_000 } as const;
    const { status, stderr, error } =
      npm && node ? spawnSync(node, [npm, ...args], options) : spawnSync('npm', args, options);
    if (status === 0 && peersAreInstalled()) return undefined;
    // npm's first lines are codes, and its last line says where its log is.
    const complaint = stderr?.match(/^npm error (?!code |errno |syscall |path |A complete log)(.+)$/m)?.[1];
    return `npm ci in bench/peers failed: ${complaint ?? error?.message ?? `exit status ${status}`}`;
  }

  #buildGo(): Command | Unavailable {
    const places = [...(process.env.PATH ?? '').split(':'), '/usr/local/go/bin'];
    const go = places.map((place) => join(place, 'go')).find((file) => existsSync(file));
    if (go === undefined) return { reason: 'the go command is not installed' };
    const file = join(this.#folder, 'apns2');
    const { status, stderr, error } = spawnSync(go, ['build', '-o', file, '.'], {
      cwd: join(peers, 'apns2'),
      encoding: 'utf8',
      timeout: 300_000,
      env: { ...process.env, GOFLAGS: '-mod=mod', GOTOOLCHAIN: 'local', GOWORK: 'off' },
    });
    if (status === 0) return { file, args: [] };
    return { reason: `go build failed: ${lastLine(stderr) || error?.message || `exit status ${status}`}` };
  }
}

const notificationId = '0198c0de-0001-7abc-8def-0123456789ab';
const message = {
  title: 'Hello',
  body: 'A message of ordinary size',
  sound: 'default',
  badge: 1,
  deepLink: 'https://example.org/a/b/c',
  ttlSeconds: 3600,
};

/** Whether they are installed as the lock file has them. */
function peersAreInstalled(): boolean {
  const read = (file: string) => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined);
  const wanted: Record<string, { version?: string; optional?: boolean }> = read(join(peers, 'package-lock.json'));
  const installed: typeof wanted | undefined = read(join(peers, 'node_modules', '.package-lock.json'));
  return Object.entries(wanted).every(
    ([name, { version, optional }]) => name === '' || optional || installed?.[name]?.version === version,
  );
}

/** Returns the program's standard output. @throws with the last line of its standard error when it fails. */
function runProgram(file: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { encoding: 'utf8', timeout: roundTimeoutMs }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(error.killed ? 'it did not end in time' : errorLine(stderr) || error.message));
    });
  });
}

function errorLine(text: string): string {
  return text.match(/^.*Error: .*$/m)?.[0] ?? lastLine(text);
}

function lastLine(text: string | null): string {
  return text?.trim().split('\n').at(-1) ?? '';
}
