/**
 * A provider that takes a set number of requests a second and queues the others: the sender must give it all that it takes and no
 * more than it answers in time. Nothing is broken, so a request in doubt or a repeat is a fault.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { normaliseApnsKey } from '../providers/apns/key.ts';
import { createApnsProvider } from '../providers/apns/provider.ts';
import type { PreparedMessage, PushProvider } from '../providers/provider.ts';
import { SimulatorControl } from '../simulator/control-client.ts';
import { apnsDeviceToken } from '../simulator/device-tokens.ts';
import { type LaunchedSimulator, launchSimulator } from '../simulator/launch.ts';
import { InMemoryProviderTokenStore } from '../test/support/in-memory-token-store.ts';
import { round, tableRow } from './figures.ts';

export interface PaceFigures {
  peer: string;
  /** Requests a second that the provider takes, over the whole run, and those that it answered. */
  takes: number;
  reached: number;
  /** Requests without an answer, and messages that the provider got twice. */
  in_doubt: number;
  repeats: number;
  /** Most requests that were at the provider at once. */
  most_waiting: number;
}

interface Peer {
  name: string;
  /** Answers a second, in the first half of the run and in the second. */
  rates: [number, number];
  burstMs?: number;
  seconds: number;
}

/** As many as a worker has under way for one batch (`CARILLON_MAX_IN_FLIGHT`). */
const maxInFlight = 2000;

export async function benchPace(quick: boolean, say: (line: string) => void): Promise<PaceFigures[]> {
  const seconds = quick ? 4 : 12;
  const peers: Peer[] = [
    { name: 'steady', rates: [50, 50], seconds },
    { name: 'steady', rates: [430, 430], seconds },
    { name: 'steady', rates: [5_000, 5_000], seconds },
    { name: 'steady', rates: [50_000, 50_000], seconds },
    { name: 'bursts of 250 ms', rates: [430, 430], burstMs: 250, seconds },
    { name: 'bursts of 1 s', rates: [430, 430], burstMs: 1_000, seconds: 2 * seconds },
    { name: 'ten times slower', rates: [5_000, 500], seconds: 2 * seconds },
    { name: 'ten times slower', rates: [500, 50], seconds: 2 * seconds },
    { name: 'ten times faster', rates: [500, 5_000], seconds: 2 * seconds },
  ];
  say('A provider that takes so many requests a second and queues the rest, PINGs too');
  say(tableRow('', 'takes, /s', 'reached, /s', '%', 'in doubt', 'repeats', 'most waiting'));
  const all: PaceFigures[] = [];
  for (const peer of peers) {
    const figures = await measure(peer);
    const { takes, reached, in_doubt: inDoubt, repeats, most_waiting: mostWaiting } = figures;
    say(tableRow(peer.name, takes, reached, round((reached / takes) * 100, 1), inDoubt, repeats, mostWaiting));
    all.push(figures);
  }
  return all;
}

async function measure({ name, rates, burstMs = 0, seconds }: Peer): Promise<PaceFigures> {
  const simulator = await launchSimulator({
    recentRequests: 0,
    settings: { answersPerSecond: rates[0], answerBurstMs: burstMs, queuesPings: true, apnsMaxConcurrentStreams: 1500 },
  });
  const control = new SimulatorControl(simulator.controlUrl);
  const provider = createProvider(simulator);
  try {
    const sender = new Sender(provider, provider.prepare({ notificationId: uuidV7(), message }));
    // Connecting and the compiling during the first requests are no matter of pace.
    await sender.run(10 * burstMs + 500);
    const startedAt = performance.now();
    const before = sender.answered;
    await sender.run((seconds * 1000) / 2);
    if (rates[1] !== rates[0]) await control.changeSettings({ answersPerSecond: rates[1] });
    await sender.run((seconds * 1000) / 2);
    const reached = ((sender.answered - before) * 1000) / (performance.now() - startedAt);
    await control.changeSettings({ answersPerSecond: 0 });
    await sender.end();
    const { repeats, max_in_flight: mostWaiting } = await control.ledgerSummary();
    return {
      peer: name,
      takes: (rates[0] + rates[1]) / 2,
      reached: round(reached, 0),
      in_doubt: sender.inDoubt,
      repeats,
      most_waiting: mostWaiting,
    };
  } finally {
    await provider.close();
    await simulator.close();
  }
}

/** Sends as a worker does: as many at once as the provider can use. */
class Sender {
  readonly #provider: PushProvider;
  readonly #prepared: PreparedMessage;
  #n = 0;
  #inFlight = 0;
  #isSending = false;
  answered = 0;
  inDoubt = 0;

  constructor(provider: PushProvider, prepared: PreparedMessage) {
    this.#provider = provider;
    this.#prepared = prepared;
  }

  async run(ms: number): Promise<void> {
    this.#isSending = true;
    this.#sendOn();
    await sleep(ms);
  }

  /** @throws for a request that is neither accepted nor in doubt: then something else was measured. */
  async end(): Promise<void> {
    this.#isSending = false;
    while (this.#inFlight > 0) await sleep(10);
    if (this.#refusal !== undefined) throw new Error(`not accepted: ${this.#refusal}`);
  }

  #refusal: string | undefined;

  #sendOn(): void {
    const [host] = this.#provider.hosts;
    while (this.#isSending && this.#inFlight < Math.min(maxInFlight, this.#provider.usefulRequests(host!))) {
      const n = this.#n++;
      this.#inFlight++;
      void this.#provider
        .send(this.#prepared, { deviceId: n + 1, deviceToken: apnsDeviceToken(n), apnsEnvironment: null })
        .then((verdict) => {
          this.#inFlight--;
          if (verdict.kind === 'accepted') this.answered++;
          else if (verdict.kind === 'unanswered') this.inDoubt++;
          else this.#refusal = JSON.stringify(verdict);
          this.#sendOn();
        });
    }
  }
}

const message = { title: 'Hello', body: 'A message of ordinary size' };

function createProvider({ files, apnsUrl, apnsTopic }: LaunchedSimulator): PushProvider {
  return createApnsProvider({
    credential: normaliseApnsKey({
      privateKey: readFileSync(files.apnsKeyPath),
      keyId: files.apnsKeyId,
      teamId: files.apnsTeamId,
    }),
    apnsTopic,
    urls: { production: apnsUrl },
    providerTokenStore: new InMemoryProviderTokenStore(),
    ca: readFileSync(files.caCertificatePath, 'utf8'),
  });
}
