/**
 * The control API: HTTP and JSON on a port of its own. What each route takes and gives is typed in `control-types.ts`;
 * `control-client.ts` is its client.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type {
  ClockRequest,
  ConnectionRequest,
  LookupRequest,
  OauthRequest,
  ProcessUsage,
  SettingsRequest,
} from './control-types.ts';
import { errorCodeNumber } from './error-codes.ts';
import { type QuotaOptions, retryAfterForms } from './fcm/quota.ts';
import { connectionView, ledgerSummary, repeatedEntries, requestView } from './ledger-views.ts';
import { admissions, type Listener } from './listener.ts';
import { type OauthServer, oauthFaults } from './oauth/oauth-server.ts';
import type { RuleInput } from './rules.ts';
import type { SimulatorSettings, SimulatorState } from './state.ts';

export interface ControlServerOptions {
  host: string;
  port: number;
  state: SimulatorState;
  listeners: readonly Listener[];
  oauth: OauthServer;
}

type Handler = (url: URL, body: unknown) => unknown;

/** The caller's fault: answered 400 with its message. */
class BadRequest extends Error {}

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
  routes: Record<string, Handler>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const route = routes[`${request.method} ${url.pathname}`];
  let text = '';
  request.setEncoding('utf8');
  for await (const part of request) text += part;
  if (route === undefined) {
    sendJson(response, 404, { error: 'no such route', routes: Object.keys(routes) });
    return;
  }
  const result = await route(url, text === '' ? {} : JSON.parse(text));
  if (result instanceof Lines) {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    for (const value of result.values) response.write(`${JSON.stringify(value)}\n`);
    response.end();
  } else sendJson(response, 200, result ?? {});
}

function ledgerRoutes({ state, oauth }: ControlServerOptions): Record<string, Handler> {
  const { ledger, log } = state;
  return {
    'GET /healthz': () => ({ status: 'ok' }),
    'GET /process': (): ProcessUsage => {
      const { user, system } = process.cpuUsage();
      return { pid: process.pid, cpu_us: user + system, rss_bytes: process.memoryUsage.rss() };
    },
    'GET /ledger/summary': (url) => ledgerSummary(state, oauth, url.searchParams.get('nid') ?? undefined),
    'GET /ledger/notifications': () =>
      ledger.listNotifications().map(({ notificationId, counts }) => ({
        notificationId,
        received: counts.received,
        accepted: counts.accepted,
        distinct_accepted: counts.distinctAccepted,
        repeats: counts.repeats,
      })),
    'GET /ledger/last-received-at': (url) => {
      const nid = url.searchParams.get('nid');
      const counts = nid === null ? ledger.totals : ledger.findNotification(nid)?.counts;
      return { last_received_at_ms: counts?.lastReceivedAtMs || null };
    },
    'POST /ledger/lookup': (_url, body) => {
      const { notificationId, tokens, devices } = body as LookupRequest;
      if (typeof notificationId !== 'string') throw new BadRequest('notificationId is needed');
      const wanted = tokens ?? devices?.map((device) => device.token) ?? [];
      return { entries: wanted.map((token) => ({ token, ...ledger.read(notificationId, token) })) };
    },
    'GET /ledger/recent': (url) => {
      const limit = Number(url.searchParams.get('limit') ?? log.capacity);
      const nid = url.searchParams.get('nid');
      const wanted = nid === null ? undefined : ledger.notification(nid).key;
      const requests = log.list().filter((request) => wanted === undefined || request.notificationKey === wanted);
      return { requests: requests.slice(-limit).map(requestView) };
    },
    'GET /ledger/entries': (url) => {
      const minAccepted = Number(url.searchParams.get('min_accepted') ?? 2);
      if (!(minAccepted >= 2)) throw new BadRequest('min_accepted starts at 2: single entries keep no device token');
      return new Lines(repeatedEntries(ledger, url.searchParams.get('nid') ?? undefined, minAccepted));
    },
    'POST /ledger/reset': () => {
      ledger.reset();
      log.clear();
      state.providerTokens.reset();
      Object.assign(state.counters, { connectionsOpened: 0, refusedStreams: 0, droppedByGoaway: 0, protocolErrors: 0 });
      Object.assign(state.counters, { lastProtocolError: '', maxInFlight: state.counters.inFlight });
      state.accessTokens.issued = 0;
    },
  };
}

function faultRoutes({ state, listeners, oauth }: ControlServerOptions): Record<string, Handler> {
  const { rules, settings } = state;
  const connections = () => listeners.flatMap((listener) => listener.connections());
  const chosen = (body: unknown) => {
    const { connection, listener } = body as ConnectionRequest;
    return connections().filter(
      (one) =>
        (connection === undefined || one.id === connection) && (listener === undefined || one.listener === listener),
    );
  };
  return {
    'GET /rules': () => ({ rules: rules.list() }),
    'POST /rules': (_url, body) => {
      if (typeof (body as RuleInput).action?.type !== 'string') throw new BadRequest('action.type is needed');
      return rules.add(body as RuleInput);
    },
    'DELETE /rules': (url) => {
      const id = url.searchParams.get('id');
      rules.remove(id === null ? undefined : Number(id));
    },
    'GET /settings': () => ({
      ...settings,
      admissions: Object.fromEntries(listeners.map(({ name, admission }) => [name, admission])),
      apnsTopics: [...state.apnsTopics],
      revokedKeyIds: [...state.providerTokens.revokedKeyIds],
      fcmProjects: [...state.fcmProjects],
    }),
    'POST /settings': (_url, body) => applySettings(state, listeners, body as SettingsRequest),
    'GET /connections': () => ({ connections: connections().map(connectionView) }),
    'POST /connections/goaway': (_url, body) => {
      const { code, reason, debugData, lastStreamId, closesWhenDone } = body as ConnectionRequest;
      const affected = chosen(body);
      for (const connection of affected) {
        connection.goaway({
          ...(lastStreamId === undefined ? {} : { lastStreamId }),
          ...(closesWhenDone === undefined ? {} : { closesWhenDone }),
          errorCode: errorCodeNumber(code ?? 0),
          debugData: debugData ?? (reason === undefined ? '' : JSON.stringify({ reason })),
        });
      }
      return { affected: affected.length };
    },
    'POST /connections/reset': (_url, body) => affect(chosen(body), (connection) => connection.reset()),
    'POST /connections/close': (_url, body) => affect(chosen(body), (connection) => connection.end()),
    'POST /connections/blackhole': (_url, body) => affect(chosen(body), (connection) => connection.blackHole()),
    'POST /connections/max-streams': (_url, body) => {
      const { limit } = body as ConnectionRequest;
      if (typeof limit !== 'number') throw new BadRequest('limit is needed');
      return affect(chosen(body), (connection) => connection.setMaxConcurrentStreams(limit));
    },
    'POST /clock': (_url, body) => {
      const { offsetMs } = body as ClockRequest;
      if (typeof offsetMs !== 'number') throw new BadRequest('offsetMs is needed');
      state.clock.offsetMs = offsetMs;
      return { offsetMs, nowMs: state.clock.now() };
    },
    'POST /oauth': (_url, body) => {
      const { expiresInSeconds, fault, revokeAll } = body as OauthRequest;
      if (expiresInSeconds !== undefined) state.accessTokens.expiresInSeconds = expiresInSeconds;
      if (fault !== undefined) {
        if (fault !== null && !oauthFaults.includes(fault))
          throw new BadRequest(`fault: one of ${oauthFaults.join(', ')}`);
        oauth.fault = fault;
      }
      if (revokeAll) state.accessTokens.revokeAll();
      return { expiresInSeconds: state.accessTokens.expiresInSeconds, fault: oauth.fault };
    },
    'POST /quota': (_url, body) => {
      const options = body as Partial<QuotaOptions>;
      if (options.retryAfter !== undefined && !retryAfterForms.includes(options.retryAfter)) {
        throw new BadRequest(`retryAfter: one of ${retryAfterForms.join(', ')}`);
      }
      state.quota.configure(options);
      return { ...state.quota.options, refused: state.quota.refused };
    },
    /** Everything as after the start, the ledger and open connections apart. */
    'POST /reset-faults': () => {
      rules.remove();
      oauth.fault = null;
      state.accessTokens.expiresInSeconds = 3599;
      state.clock.offsetMs = 0;
      state.quota.configure({ perMinute: null, retryAfter: 'seconds' });
      state.providerTokens.revokedKeyIds.clear();
      for (const listener of listeners) listener.admission = 'accept';
    },
  };
}

function affect<T>(affected: T[], act: (one: T) => void): { affected: number } {
  for (const one of affected) act(one);
  return { affected: affected.length };
}

function applySettings(state: SimulatorState, listeners: readonly Listener[], request: SettingsRequest): unknown {
  const { admission, admissionListener, apnsTopics, fcmProjects, revokedKeyIds, ...rest } = request;
  const settings: SimulatorSettings = state.settings;
  for (const [name, value] of Object.entries(rest)) {
    const current = settings[name as keyof SimulatorSettings];
    if (typeof value !== typeof current) throw new BadRequest(`${name} is no setting, or of another type`);
  }
  Object.assign(settings, rest);
  if (admission !== undefined) {
    if (!admissions.includes(admission)) throw new BadRequest(`admission: one of ${admissions.join(', ')}`);
    for (const listener of listeners) {
      if (admissionListener === undefined || listener.name === admissionListener) listener.admission = admission;
    }
  }
  if (apnsTopics !== undefined) replace(state.apnsTopics, apnsTopics);
  if (fcmProjects !== undefined) replace(state.fcmProjects, fcmProjects);
  if (revokedKeyIds !== undefined) replace(state.providerTokens.revokedKeyIds, revokedKeyIds);
  return settings;
}

function replace(set: Set<string>, values: string[]): void {
  set.clear();
  for (const value of values) set.add(value);
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}
