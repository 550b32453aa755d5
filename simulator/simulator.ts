/** Fake APNs (production and sandbox), fake FCM and fake OAuth over real TLS, with a control API for faults and the ledger. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AnswerQueue } from './answer-queue.ts';
import { ApnsService } from './apns/apns-service.ts';
import { ProviderTokenVerifier } from './apns/provider-token.ts';
import { SimulatorClock } from './clock.ts';
import { startControlServer } from './control-server.ts';
import { type CredentialFiles, prepareCredentials } from './credentials.ts';
import type { TransportCounters } from './exchange.ts';
import { FcmService } from './fcm/fcm-service.ts';
import { FcmQuota } from './fcm/quota.ts';
import { Ledger, notificationKey } from './ledger.ts';
import { type ListenerOptions, startListener } from './listener.ts';
import { AccessTokens } from './oauth/access-tokens.ts';
import { startOauthServer } from './oauth/oauth-server.ts';
import { createRandom } from './random.ts';
import { RequestLog } from './request-log.ts';
import { Rules } from './rules.ts';
import { defaultSettings, type SimulatorSettings, type SimulatorState } from './state.ts';

export interface SimulatorOptions {
  /** Default 127.0.0.1. The certificate is for loopback names only. */
  host?: string;
  /** 0, the default: any free port. */
  ports?: { apns?: number; apnsSandbox?: number; fcm?: number; oauth?: number; control?: number };
  /** Seed of all randomness: message ids, access tokens, probabilities, latencies. Default 1. */
  seed?: number;
  /** Where keys and certificates are kept; absent: a temporary folder, removed by `close`. */
  directory?: string;
  /** Bundle ids that may be pushed to; default `dev.carillon.demo`. */
  apnsTopics?: string[];
  apnsKeyId?: string;
  apnsTeamId?: string;
  /** Default `carillon-demo`. */
  fcmProjectId?: string;
  /** Requests kept in full for `GET /ledger/recent`; default 1 000, 0 keeps none. */
  recentRequests?: number;
  settings?: Partial<SimulatorSettings>;
}

/** Addresses of a running simulator. All URLs without a trailing slash; plain data, so that it can pass between processes. */
export interface SimulatorAddresses {
  apnsUrl: string;
  apnsSandboxUrl: string;
  fcmUrl: string;
  oauthTokenUrl: string;
  controlUrl: string;
  apnsTopic: string;
  files: CredentialFiles;
}

export interface Simulator extends SimulatorAddresses {
  /** For tests in the same process; the control API shows the same. */
  readonly state: SimulatorState;
  /** Closes every connection and port. */
  close(): Promise<void>;
}

export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const host = options.host ?? '127.0.0.1';
  const seed = options.seed ?? 1;
  const apnsTopics = options.apnsTopics ?? ['dev.carillon.demo'];
  const fcmProjectId = options.fcmProjectId ?? 'carillon-demo';
  const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'carillon-simulator-'));
  const credentials = prepareCredentials({
    directory,
    apnsTopics,
    apnsKeyId: options.apnsKeyId ?? 'SIMKEY0001',
    apnsTeamId: options.apnsTeamId ?? 'SIMTEAM001',
    fcmProjectId,
  });
  const clock = new SimulatorClock();
  const random = createRandom(seed);
  const { apnsKeyId, apnsTeamId } = credentials.files;
  const state: SimulatorState = {
    clock,
    random,
    ledger: new Ledger(),
    log: new RequestLog(options.recentRequests ?? 1000),
    rules: new Rules(random, notificationKey),
    counters: createCounters(),
    settings: { ...defaultSettings, ...options.settings },
    apnsTopics: new Set(apnsTopics),
    providerTokens: new ProviderTokenVerifier(
      [{ keyId: apnsKeyId, teamId: apnsTeamId, publicKey: credentials.apnsPublicKey }],
      clock,
    ),
    fcmProjects: new Set([fcmProjectId]),
    accessTokens: new AccessTokens(clock, seed),
    quota: new FcmQuota(clock),
  };

  let lastConnectionId = 0;
  const shared = {
    host,
    certificate: credentials.serverCertificate,
    authority: credentials.authority,
    counters: state.counters,
    nextConnectionId: () => ++lastConnectionId,
  };
  const apnsListener = (provider: ApnsService, port: number): ListenerOptions => ({
    ...shared,
    answers: new AnswerQueue(state.settings),
    name: provider.listener,
    port,
    allowsHttp1: false,
    requestsClientCertificate: true,
    initialMaxConcurrentStreams: () => (state.settings.apnsWarmUp ? 1 : state.settings.apnsMaxConcurrentStreams),
    onConnection: (connection, socket) => provider.openSession(connection, socket),
    onRequest: (exchange) => provider.handle(exchange),
  });
  const fcm = new FcmService(state);
  const ports = options.ports ?? {};
  const started: { close(): Promise<void> }[] = [];
  const keep = async <T extends { close(): Promise<void> }>(starting: Promise<T>): Promise<T> => {
    const part = await starting;
    started.push(part);
    return part;
  };
  async function close(): Promise<void> {
    await Promise.all(started.splice(0).map((part) => part.close()));
    if (options.directory === undefined) rmSync(directory, { recursive: true, force: true });
  }

  try {
    const listeners = [
      await keep(startListener(apnsListener(new ApnsService('production', state), ports.apns ?? 0))),
      await keep(startListener(apnsListener(new ApnsService('sandbox', state), ports.apnsSandbox ?? 0))),
      await keep(
        startListener({
          ...shared,
          answers: new AnswerQueue(state.settings),
          name: 'fcm',
          port: ports.fcm ?? 0,
          allowsHttp1: true,
          requestsClientCertificate: false,
          initialMaxConcurrentStreams: () => state.settings.fcmMaxConcurrentStreams,
          onConnection: () => {},
          onRequest: (exchange) => fcm.handle(exchange),
        }),
      ),
    ] as const;
    const oauth = await keep(
      startOauthServer({
        host,
        port: ports.oauth ?? 0,
        certificate: credentials.serverCertificate,
        authority: credentials.authority,
        clock,
        accessTokens: state.accessTokens,
        clientEmail: credentials.fcmClientEmail,
        privateKeyId: credentials.fcmPrivateKeyId,
        publicKey: credentials.fcmPublicKey,
      }),
    );
    const control = await keep(startControlServer({ host, port: ports.control ?? 0, state, listeners, oauth }));

    const oauthTokenUrl = `https://${host}:${oauth.port}/token`;
    credentials.writeServiceAccount(oauthTokenUrl);
    return {
      apnsUrl: `https://${host}:${listeners[0].port}`,
      apnsSandboxUrl: `https://${host}:${listeners[1].port}`,
      fcmUrl: `https://${host}:${listeners[2].port}`,
      oauthTokenUrl,
      controlUrl: `http://${host}:${control.port}`,
      apnsTopic: apnsTopics[0] ?? '',
      files: credentials.files,
      state,
      close,
    };
  } catch (error) {
    // A port that is taken must not leave the others open.
    await close();
    throw error;
  }
}

function createCounters(): TransportCounters {
  return {
    connectionsOpened: 0,
    refusedStreams: 0,
    droppedByGoaway: 0,
    protocolErrors: 0,
    lastProtocolError: '',
    inFlight: 0,
    maxInFlight: 0,
  };
}
