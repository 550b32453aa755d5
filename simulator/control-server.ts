/**
 * The control API: HTTP and JSON on a port of its own. `control-types.ts` types what each route takes and gives;
 * `control-client.ts` is its client.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  anyNumber,
  BadRequest,
  checkFields,
  either,
  type Fields,
  flag,
  type Kind,
  listOf,
  needed,
  none,
  oneOf,
  text,
  wholeNumber,
} from './checks.ts';
import type {
  Arrivals,
  ArrivalsRequest,
  ClockRequest,
  ConnectionRequest,
  LookupRequest,
  OauthRequest,
  ProcessUsage,
  SettingsRequest,
} from './control-types.ts';
import { errorCodeNumber, errorCodes } from './error-codes.ts';
import { listenerNames, type SimulatorConnection } from './exchange.ts';
import { type QuotaOptions, retryAfterForms } from './fcm/quota.ts';
import { connectionView, ledgerSummary, repeatedEntries, requestView } from './ledger-views.ts';
import { admissions, type Listener } from './listener.ts';
import { type OauthServer, oauthFaults } from './oauth/oauth-server.ts';
import { checkRule, ruleFields } from './rule-checks.ts';
import { type SimulatorState, simulatorSettingsFields } from './state.ts';

export interface ControlServerOptions {
  host: string;
  port: number;
  state: SimulatorState;
  listeners: readonly Listener[];
  oauth: OauthServer;
}

/** Fields that are not listed are refused, in the query as in the body. */
interface Route {
  query?: Readonly<Record<string, Kind>>;
  body?: Readonly<Record<string, Kind>>;
  run(url: URL, body: unknown): unknown;
}

/** Lines of NDJSON. */
class Lines {
  readonly values: Iterable<unknown>;

  constructor(values: Iterable<unknown>) {
    this.values = values;
  }
}

export async function startControlServer(
  options: ControlServerOptions,
): Promise<{ port: number; close(): Promise<void> }> {
  const routes = { ...ledgerRoutes(options), ...faultRoutes(options) };
  const server = createServer((request, response) => {
    handle(routes, request, response).catch((error: unknown) => {
      sendJson(response, error instanceof BadRequest || error instanceof SyntaxError ? 400 : 500, {
        error: String(error),
      });
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function handle(
  routes: Record<string, Route>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const route = routes[`${request.method} ${url.pathname}`];
  let content = '';
  request.setEncoding('utf8');
  for await (const part of request) content += part;
  if (route === undefined) {
    sendJson(response, 404, { error: 'no such route', routes: Object.keys(routes) });
    return;
  }
  const body: unknown = content === '' ? {} : JSON.parse(content);
  checkFields(Object.fromEntries(url.searchParams), route.query ?? {}, '?');
  checkFields(body, route.body ?? {});
  const result = await route.run(url, body);
  if (result instanceof Lines) {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    for (const value of result.values) response.write(`${JSON.stringify(value)}\n`);
    response.end();
  } else sendJson(response, 200, result ?? {});
}

const nid = { nid: text };
const digits: Kind = { what: 'a whole number', allows: (value) => /^\d+$/.test(String(value)) };

const lookupFields: Fields<LookupRequest> = {
  notificationId: needed(text),
  tokens: listOf(text),
  devices: listOf({
    what: 'an object with a token',
    allows: (value) => typeof value === 'object' && value !== null && 'token' in value && text.allows(value.token),
  }),
};

function ledgerRoutes({ state, oauth }: ControlServerOptions): Record<string, Route> {
  const { ledger, log } = state;
  return {
    'GET /healthz': { run: () => ({ status: 'ok' }) },
    'GET /process': {
      run: (): ProcessUsage => {
        const { user, system } = process.cpuUsage();
        return { pid: process.pid, cpu_us: user + system, rss_bytes: process.memoryUsage.rss() };
      },
    },
    'GET /ledger/summary': {
      query: nid,
      run: (url) => ledgerSummary(state, oauth, url.searchParams.get('nid') ?? undefined),
    },
    'GET /ledger/notifications': {
      run: () =>
        ledger.listNotifications().map(({ notificationId, counts }) => ({
          notificationId,
          received: counts.received,
          accepted: counts.accepted,
          distinct_accepted: counts.distinctAccepted,
          repeats: counts.repeats,
        })),
    },
    'GET /ledger/last-received-at': {
      query: nid,
      run: (url) => {
        const notificationId = url.searchParams.get('nid');
        const counts = notificationId === null ? ledger.totals : ledger.findNotification(notificationId)?.counts;
        return { last_received_at_ms: counts?.lastReceivedAtMs || null };
      },
    },
    'POST /ledger/first-received-at': {
      body: { notificationIds: needed(listOf(text)) } satisfies Fields<ArrivalsRequest>,
      run: (_url, body): Arrivals => ({
        first_received_at_ms: (body as ArrivalsRequest).notificationIds.map(
          (id) => ledger.findNotification(id)?.counts.firstReceivedAtMs || null,
        ),
      }),
    },
    'POST /ledger/lookup': {
      body: lookupFields,
      run: (_url, body) => {
        const { notificationId, tokens, devices } = body as LookupRequest;
        const wanted = tokens ?? devices?.map((device) => device.token) ?? [];
        return { entries: wanted.map((token) => ({ token, ...ledger.read(notificationId, token) })) };
      },
    },
    'GET /ledger/recent': {
      query: { ...nid, limit: digits },
      run: (url) => {
        const limit = Number(url.searchParams.get('limit') ?? log.capacity);
        const notificationId = url.searchParams.get('nid');
        const wanted = notificationId === null ? undefined : ledger.notification(notificationId).key;
        const requests = log.list().filter((request) => wanted === undefined || request.notificationKey === wanted);
        return { requests: requests.slice(-limit).map(requestView) };
      },
    },
    'GET /ledger/entries': {
      query: { ...nid, min_accepted: digits },
      run: (url) => {
        const minAccepted = Number(url.searchParams.get('min_accepted') ?? 2);
        if (minAccepted < 2) throw new BadRequest('min_accepted starts at 2: single entries keep no device token');
        return new Lines(repeatedEntries(ledger, url.searchParams.get('nid') ?? undefined, minAccepted));
      },
    },
    'POST /ledger/reset': {
      run: () => {
        ledger.reset();
        log.clear();
        state.providerTokens.reset();
        Object.assign(state.counters, {
          connectionsOpened: 0,
          refusedStreams: 0,
          droppedByGoaway: 0,
          protocolErrors: 0,
        });
        Object.assign(state.counters, { lastProtocolError: '', maxInFlight: state.counters.inFlight });
        state.accessTokens.issued = 0;
      },
    },
  };
}

const chosenFields: Fields<Pick<ConnectionRequest, 'connection' | 'listener'>> = {
  connection: wholeNumber,
  listener: oneOf(listenerNames),
};
const goawayFields: Fields<Omit<ConnectionRequest, 'limit'>> = {
  ...chosenFields,
  code: either(oneOf(Object.keys(errorCodes)), wholeNumber),
  reason: text,
  debugData: text,
  lastStreamId: wholeNumber,
  closesWhenDone: flag,
};
const oauthFields: Fields<OauthRequest> = {
  expiresInSeconds: anyNumber,
  fault: either(oneOf(oauthFaults), none),
  revokeAll: flag,
};
const quotaFields: Fields<QuotaOptions> = {
  perMinute: either(wholeNumber, none),
  retryAfter: oneOf(retryAfterForms),
  phaseSeconds: anyNumber,
};
const settingsFields: Fields<SettingsRequest> = {
  ...simulatorSettingsFields,
  admission: oneOf(admissions),
  admissionListener: oneOf(listenerNames),
  apnsTopics: listOf(text),
  fcmProjects: listOf(text),
  revokedKeyIds: listOf(text),
};

function faultRoutes({ state, listeners, oauth }: ControlServerOptions): Record<string, Route> {
  const { rules, settings } = state;
  const atStart = { ...settings, apnsTopics: [...state.apnsTopics], fcmProjects: [...state.fcmProjects] };
  const chosen = (body: unknown) => {
    const { connection, listener } = body as ConnectionRequest;
    return listeners
      .flatMap((one) => one.connections())
      .filter(
        (one) =>
          (connection === undefined || one.id === connection) && (listener === undefined || one.listener === listener),
      );
  };
  const onConnections = (act: (connection: SimulatorConnection) => void): Route => ({
    body: chosenFields,
    run: (_url, body) => affect(chosen(body), act),
  });
  return {
    'GET /rules': { run: () => ({ rules: rules.list() }) },
    'POST /rules': {
      body: ruleFields,
      run: (_url, body) => {
        checkRule(body);
        return rules.add(body);
      },
    },
    'DELETE /rules': {
      query: { id: digits },
      run: (url) => {
        const id = url.searchParams.get('id');
        rules.remove(id === null ? undefined : Number(id));
      },
    },
    'GET /settings': {
      run: () => ({
        ...settings,
        admissions: Object.fromEntries(listeners.map(({ name, admission }) => [name, admission])),
        apnsTopics: [...state.apnsTopics],
        revokedKeyIds: [...state.providerTokens.revokedKeyIds],
        fcmProjects: [...state.fcmProjects],
      }),
    },
    'POST /settings': {
      body: settingsFields,
      run: (_url, body) => applySettings(state, listeners, body as SettingsRequest),
    },
    'GET /connections': { run: () => ({ connections: chosen({}).map(connectionView) }) },
    'POST /connections/goaway': {
      body: goawayFields,
      run: (_url, body) => {
        const { code, reason, debugData, lastStreamId, closesWhenDone } = body as ConnectionRequest;
        return affect(chosen(body), (connection) =>
          connection.goaway({
            ...(lastStreamId === undefined ? {} : { lastStreamId }),
            ...(closesWhenDone === undefined ? {} : { closesWhenDone }),
            errorCode: errorCodeNumber(code ?? 0),
            debugData: debugData ?? (reason === undefined ? '' : JSON.stringify({ reason })),
          }),
        );
      },
    },
    'POST /connections/reset': onConnections((connection) => connection.reset()),
    'POST /connections/close': onConnections((connection) => connection.end()),
    'POST /connections/blackhole': onConnections((connection) => connection.blackHole()),
    'POST /connections/max-streams': {
      body: { ...chosenFields, limit: needed(wholeNumber) },
      run: (_url, body) => {
        const { limit } = body as Required<ConnectionRequest>;
        return affect(chosen(body), (connection) => connection.setMaxConcurrentStreams(limit));
      },
    },
    'POST /clock': {
      body: { offsetMs: needed(anyNumber) } satisfies Fields<ClockRequest>,
      run: (_url, body) => {
        const { offsetMs } = body as ClockRequest;
        state.clock.offsetMs = offsetMs;
        return { offsetMs, nowMs: state.clock.now() };
      },
    },
    'POST /oauth': {
      body: oauthFields,
      run: (_url, body) => {
        const { expiresInSeconds, fault, revokeAll } = body as OauthRequest;
        if (expiresInSeconds !== undefined) state.accessTokens.expiresInSeconds = expiresInSeconds;
        if (fault !== undefined) oauth.fault = fault;
        if (revokeAll) state.accessTokens.revokeAll();
        return { expiresInSeconds: state.accessTokens.expiresInSeconds, fault: oauth.fault };
      },
    },
    'POST /quota': {
      body: quotaFields,
      run: (_url, body) => {
        state.quota.configure(body as Partial<QuotaOptions>);
        return { ...state.quota.options, refused: state.quota.refused };
      },
    },
    /** Resets all but the ledger and open connections to the state after the start. */
    'POST /reset-faults': {
      run: () => {
        rules.remove();
        oauth.fault = null;
        state.accessTokens.expiresInSeconds = 3599;
        state.clock.offsetMs = 0;
        state.quota.configure({ perMinute: null, retryAfter: 'seconds' });
        applySettings(state, listeners, { ...atStart, revokedKeyIds: [], admission: 'accept' });
      },
    },
  };
}

function affect<T>(affected: T[], act: (one: T) => void): { affected: number } {
  for (const one of affected) act(one);
  return { affected: affected.length };
}

function applySettings(state: SimulatorState, listeners: readonly Listener[], request: SettingsRequest): unknown {
  const { admission, admissionListener, apnsTopics, fcmProjects, revokedKeyIds, ...settings } = request;
  Object.assign(state.settings, settings);
  for (const listener of admission === undefined ? [] : listeners) {
    if (admissionListener === undefined || listener.name === admissionListener) listener.admission = admission!;
  }
  if (apnsTopics !== undefined) replace(state.apnsTopics, apnsTopics);
  if (fcmProjects !== undefined) replace(state.fcmProjects, fcmProjects);
  if (revokedKeyIds !== undefined) replace(state.providerTokens.revokedKeyIds, revokedKeyIds);
  return state.settings;
}

function replace(set: Set<string>, values: string[]): void {
  set.clear();
  for (const value of values) set.add(value);
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}
